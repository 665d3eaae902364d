"""Trees of 5,000 rows through the whole pipeline: PostgreSQL, Debezium, Kafka, the daemon, Redis and Elasticsearch.

`tests/engine/test_trees.py` has the generated histories.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import redis

from tests.harness.system import System
from tests.harness.waiting import until

NODES = 5000
TABLES = (
    "CREATE TABLE {schema}.categories (id bigint PRIMARY KEY, parent_id bigint, name text NOT NULL)",
    "CREATE TABLE {schema}.products (id bigint PRIMARY KEY, category_id bigint, name text NOT NULL)",
    "ALTER TABLE {schema}.products REPLICA IDENTITY FULL",
    "CREATE INDEX ON {schema}.products (category_id)",
    # Node n has the children 4n - 2 … 4n + 1. All nodes are below the first, except the last two.
    "INSERT INTO {schema}.categories SELECT n, nullif((n + 2) / 4, 0), 'node ' || n FROM generate_series(1, 5000) n",
    f"INSERT INTO {{schema}}.categories VALUES ({NODES + 1}, NULL, 'other'), ({NODES + 2}, {NODES + 1}, 'below other')",
    f"INSERT INTO {{schema}}.products SELECT n, n * 40, 'product ' || n FROM generate_series(1, {NODES // 40}) n",
    "ANALYZE {schema}.categories",
)
CATEGORIES = """
name: {summaries}
root: {{table: {schema}.categories}}
document:
  name: name
  ancestors: {{up: {schema}.categories, on: {{id: parent_id}}, limit: 20, document: {{id: id, name: name}}}}
  path: string_agg(ancestors.name, ' > ')
sink: {{redis: {{key: "{prefix}:summary:{{id}}"}}}}
"""
PRODUCTS = """
name: {orders}
root: {{table: {schema}.products}}
document:
  name: name
  categories:
    up: {schema}.categories
    on: {{id: category_id}}
    step: {{id: parent_id}}
    limit: 20
    first: nearest
    value: name
sink:
  elasticsearch: {{index: {orders}, settings: {{number_of_shards: 1, number_of_replicas: 0}}}}
"""
CYCLE = "cycle in a tree: the path of each row on it or below it is cut at the first repeated row"
FROM_THE_TOP = """
WITH RECURSIVE tree AS (
    SELECT c.id, c.name, '{{}}'::json[] AS above, NULL AS path, ARRAY[c.name] AS own FROM {schema}.categories c
     WHERE NOT EXISTS (SELECT FROM {schema}.categories p WHERE p.id = c.parent_id)
    UNION ALL
    SELECT c.id, c.name, t.above || json_build_object('id', t.id, 'name', t.name), concat_ws(' > ', t.path, t.name),
           c.name || t.own
      FROM tree t JOIN {schema}.categories c ON c.parent_id = t.id)
"""
EXPECTED_CATEGORIES = (
    FROM_THE_TOP
    + "SELECT id::text, json_build_object('name', name, 'ancestors', array_to_json(above), 'path', path) FROM tree"
)
EXPECTED_PRODUCTS = (
    FROM_THE_TOP + "SELECT p.id::text, json_build_object('name', p.name, 'categories',"
    " coalesce(array_to_json(t.own), '[]'::json)) FROM {schema}.products p LEFT JOIN tree t ON t.id = p.category_id"
)


@pytest.fixture
def system(system: System) -> System:
    system.execute(*TABLES)
    system.declare("summaries", CATEGORIES)
    system.declare("orders", PRODUCTS)
    system.environment["SYNCER_PIPELINE__FAN_OUT"] = "1000"
    return system


def differences(system: System, model: str, query: str) -> dict[str, Any]:
    """Returns some of the wrong documents, each with the right one."""
    found, wanted = system.documents(model), dict(system.database.query(query.format(schema=system.schema)))
    wrong = [id for id in found | wanted if found.get(id) != wanted.get(id)]
    return {id: (found.get(id), wanted.get(id)) for id in wrong[:3]}


def is_in_sync(system: System, model: str, query: str) -> bool:
    return not differences(system, model, query)


def until_in_sync(system: System) -> None:
    """Waits until every document equals the query that walks from the top down."""
    for model, query in ((system.summaries, EXPECTED_CATEGORIES), (system.orders, EXPECTED_PRODUCTS)):
        until(partial(is_in_sync, system, model, query), partial(differences, system, model, query), 90)


def handed_over(system: System) -> int:
    """Returns how many documents have come through the work topic as fan-outs."""
    records = system.topic_reader().read_all(f"{system.prefix}.{system.summaries}.1.work")
    items = [json.loads(record.value or b"{}") for record in records]
    return sum(len(item["keys"]) for item in items if item.get("reason") == "fan-out")


def test_changes_of_a_tree_reach_the_whole_branch(system: System) -> None:
    """One test, because a system takes long to start. Each step names what it shows."""
    # -- check demands the index, explain and preview show the path
    found = system.run("check", system.summaries)
    index = f"CREATE INDEX CONCURRENTLY ON {system.schema}.categories (parent_id);"
    assert index in found and "tree-cycle" not in found
    system.execute(index)
    assert index not in system.run("check", system.summaries)
    explained = system.run("explain", system.summaries)
    assert "up to 20 ancestors, the farthest first; step to the next one: id = parent_id" in explained
    [table] = [t for t in json.loads(system.run("explain", system.orders, "--json"))["tables"] if "ancestors" in t]
    assert table["ancestors"] == {"step": {"id": "parent_id"}, "limit": 20, "first": "nearest"}
    assert json.loads(system.run("preview", system.summaries, "30", "--compact"))["path"] == "node 1 > node 2 > node 8"

    system.run("backfill")
    daemon = system.start()
    until_in_sync(system)

    # -- a rename at the top goes through the work topic
    system.execute("UPDATE {schema}.categories SET name = 'top' WHERE id = 1")
    until_in_sync(system)
    assert handed_over(system) >= NODES - 1000

    # -- a branch moves; a node and its parent move in concurrent transactions, and the lower one commits first
    system.execute(f"UPDATE {{schema}}.categories SET parent_id = {NODES + 2} WHERE id = 2")
    with system.database.connect(autocommit=False) as upper, system.database.connect(autocommit=False) as lower:
        move = f"UPDATE {system.schema}.categories SET parent_id = %s WHERE id = %s"
        upper.execute(move.encode(), [5, 3])
        lower.execute(move.encode(), [4, 12])
        lower.execute(move.encode(), [NODES + 1, 13])
        lower.commit()
        upper.commit()
    until_in_sync(system)

    # -- a node in the middle is deleted: the paths below it begin there. Then it comes back elsewhere
    system.execute("DELETE FROM {schema}.categories WHERE id = 4")
    until_in_sync(system)
    system.execute(f"INSERT INTO {{schema}}.categories VALUES (4, {NODES + 1}, 'again')")
    until_in_sync(system)

    # -- the trace of a document far below names the change of an ancestor
    found = system.run("trace", system.summaries, "61", "--json")
    changes = [(c["table"], c["key"], c["operation"]) for c in json.loads(found)["changes"]]
    assert any(key == "4" for _, key, _ in changes), changes

    # -- a cycle ends the paths, and is reported. Once it is open, everything is in sync again
    system.execute("UPDATE {schema}.categories SET parent_id = 62 WHERE id = 16")
    until(lambda: daemon.logged(CYCLE, cycle="16 → 62 → 16", relation="ancestors"))
    with redis.Redis.from_url(system.redis) as client:

        def path(id: int) -> Any:
            value: Any = client.get(f"{system.prefix}:summary:{id}")
            return json.loads(value)["path"]

        until(lambda: path(62) == "node 16")
        until(lambda: path(16) == "node 62")
        until(lambda: path(246) == "node 16 > node 62")
    found = system.run("check", system.summaries)
    assert "are on a cycle or below one, such as" in found and "62" in found
    system.execute("UPDATE {schema}.categories SET parent_id = 4 WHERE id = 16")
    until_in_sync(system)

    # -- an empty tree
    system.execute("TRUNCATE {schema}.categories")
    until_in_sync(system)
