"""Lists with one element for each group: equal to GROUP BY after each change, on PostgreSQL and on all real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3

from syncer.declaration.compiled import TableUse
from syncer.declaration.grouped_level import GroupedLevel
from syncer.errors import Fatal
from syncer.events import ChangeEvent
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.registry import loader
from tests.harness import Database
from tests.harness.engine import Engine
from tests.harness.system import System
from tests.harness.waiting import until

TABLES = (
    "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "CREATE TABLE films (id int PRIMARY KEY, title text NOT NULL)",
    "CREATE TABLE cities (id int PRIMARY KEY, name text)",
    "CREATE TABLE stores (id int PRIMARY KEY, name text NOT NULL, city_id int, open boolean NOT NULL DEFAULT true)",
    """CREATE TABLE inventory (
        id bigint PRIMARY KEY, film_id int, store_id int, price numeric, at timestamptz, kind text COLLATE loose,
        unused text)""",
    "CREATE INDEX ON inventory (film_id)",
    "CREATE INDEX ON inventory (store_id)",
    "CREATE INDEX ON stores (city_id)",
    *(f"ALTER TABLE {table} REPLICA IDENTITY FULL" for table in ("films", "cities", "stores", "inventory")),
    "INSERT INTO cities VALUES (1, 'Ulm'), (2, NULL)",
    "INSERT INTO stores VALUES (1, 'north', 1), (2, 'south', 2), (3, 'new', NULL)",
    "INSERT INTO films VALUES (1, 'Jaws'), (2, 'Alien'), (3, 'Heat')",
)
FILMS = """
name: films
root: {table: films}
document:
  title: title
  copies:
    many: inventory
    on: {film_id: id}
    where: store.open or store.open is null
    group_by: store_id
    order_by: count(*) desc
    limit: 3
    relations:
      store: {one: stores, on: {id: store_id}, relations: {city: {one: cities, on: {id: city_id}}}}
    document:
      store_id: store_id
      store: store.name
      city: store.city.name
      copies: count(*)
      worth: {object: {total: sum(price), of: array(id), dear: count(*) filter (where price >= 2)}}
      shop:
        one: stores
        on: {id: store_id}
        document: {name: name, city: {one: cities, on: {id: city_id}, value: name}}
  days:
    many: inventory
    on: {film_id: id}
    group_by: ["date_trunc('day', at, 'UTC')", price]
    document: {day: "date_trunc('day', at, 'UTC')", price: price, double: price * 2, text: price::text, last: max(id)}
  kinds: {many: inventory, on: {film_id: id}, group_by: kind, order_by: kind nulls first, value: kind}
  cities: {many: inventory, on: {film_id: id}, group_by: shop.city_id, order_by: min(shop.name) desc,
           relations: {shop: {one: stores, on: {id: store_id}, relations: {city: {one: cities, on: {id: city_id}}}}},
           document: {city: shop.city.name, names: array(distinct shop.name)}}
  twice:
    many: inventory
    on: {film_id: id}
    group_by: [running.id, closed.id]
    relations:
      running: {one: stores, on: {id: store_id}, where: open}
      closed: {one: stores, on: {id: store_id}, where: not open}
    document: {running: running.name, closed: closed.name, copies: count(*)}
  rows: count(copies)
sink: {memory: {}}
"""
EXPECTED = """
SELECT f.id::text, json_build_object('title', title,
  'copies', (SELECT coalesce(json_agg(g.element ORDER BY n DESC, store_id), '[]') FROM (
     SELECT store_id, count(*) AS n, json_build_object(
              'store_id', store_id, 'store', min(s.name), 'city', min(c.name), 'copies', count(*),
              'worth', json_build_object('total', sum(price), 'of', array_agg(i.id ORDER BY i.id),
                                         'dear', count(*) FILTER (WHERE price >= 2)),
              'shop', CASE WHEN min(s.id) > 0 THEN json_build_object('name', min(s.name), 'city', min(c.name)) END
            ) AS element
       FROM inventory i LEFT JOIN stores s ON s.id = i.store_id LEFT JOIN cities c ON c.id = s.city_id
      WHERE film_id = f.id AND (s.open OR s.open IS NULL)
      GROUP BY store_id ORDER BY count(*) DESC, store_id LIMIT 3) g),
  'days', (SELECT coalesce(json_agg(g.element ORDER BY day, price), '[]') FROM (
     SELECT date_trunc('day', at, 'UTC') AS day, price, json_build_object(
              'day', date_trunc('day', at, 'UTC'), 'price', (array_agg(price ORDER BY id))[1],
              'double', (array_agg(price ORDER BY id))[1] * 2, 'text', (array_agg(price ORDER BY id))[1]::text,
              'last', max(id)) AS element
       FROM inventory WHERE film_id = f.id GROUP BY date_trunc('day', at, 'UTC'), price) g),
  'kinds', (SELECT coalesce(json_agg(first ORDER BY first NULLS FIRST), '[]') FROM (
     SELECT (array_agg(kind ORDER BY id))[1] AS first FROM inventory WHERE film_id = f.id GROUP BY kind) g),
  'cities', (SELECT coalesce(json_agg(g.element ORDER BY least DESC, city_id), '[]') FROM (
     SELECT s.city_id, min(s.name) AS least, json_build_object(
              'city', min(c.name), 'names', array_agg(DISTINCT s.name)) AS element
       FROM inventory i LEFT JOIN stores s ON s.id = i.store_id LEFT JOIN cities c ON c.id = s.city_id
      WHERE film_id = f.id GROUP BY s.city_id) g),
  'twice', (SELECT coalesce(json_agg(g.element ORDER BY running, closed), '[]') FROM (
     SELECT r.id AS running, c.id AS closed, json_build_object(
              'running', min(r.name), 'closed', min(c.name), 'copies', count(*)) AS element
       FROM inventory i LEFT JOIN stores r ON r.id = i.store_id AND r.open
       LEFT JOIN stores c ON c.id = i.store_id AND NOT c.open WHERE film_id = f.id GROUP BY r.id, c.id) g),
  'rows', (SELECT count(*) FROM inventory i LEFT JOIN stores s ON s.id = i.store_id
            WHERE film_id = f.id AND (s.open OR s.open IS NULL)))::text
  FROM films f"""
MANY = """INSERT INTO inventory
  SELECT n, 1 + n % 3, nullif(n % 5, 0), CASE WHEN n % 7 > 0 THEN (n % 4)::numeric(9, 2) * 1.0 END,
         '2024-02-28Z'::timestamptz + n * interval '5 hours', (ARRAY['a', 'A', 'b', 'B', NULL])[1 + n * n % 5]
    FROM generate_series(10, 70) n"""
HISTORY = (
    """INSERT INTO inventory VALUES
         (1, 1, 1, 1.00, '2024-02-29 23:59Z', 'Dvd'), (2, 1, 1, 1.0, '2024-03-01 00:01Z', 'dvd'),
         (3, 1, 2, 2, '2024-03-01 05:00Z', NULL),
         (4, 1, NULL, NULL, NULL, 'vhs'), (5, 2, 9, 3, '2024-03-01Z', 'DVD')""",
    MANY,
    "UPDATE inventory SET store_id = 2 WHERE id = 1",  # to another group
    "UPDATE inventory SET film_id = 2 WHERE id = 2",  # to another root
    "UPDATE inventory SET film_id = 3, store_id = NULL WHERE id BETWEEN 20 AND 30",
    "UPDATE inventory SET price = 1.000 WHERE id = 1",
    "UPDATE inventory SET at = at + interval '1 day', kind = upper(kind) WHERE id % 9 = 0",
    "UPDATE inventory SET kind = 'ß' WHERE id = 3",
    "UPDATE inventory SET store_id = 2 WHERE store_id IS NULL AND id > 40",
    "UPDATE stores SET name = 'west' WHERE id = 2",
    "UPDATE stores SET open = false WHERE id = 1",
    "UPDATE stores SET city_id = 1 WHERE id = 3",
    "UPDATE cities SET name = 'Neu-Ulm' WHERE id = 1",
    "DELETE FROM stores WHERE id = 2",
    "INSERT INTO stores VALUES (9, 'nine', 1), (4, 'four', 7)",
    "DELETE FROM inventory WHERE film_id = 3",
    "UPDATE inventory SET id = id + 1000 WHERE film_id = 1",
    "DELETE FROM films WHERE id = 1",
)


class Lists:
    """The read model over the tables. Each statement is followed by the events of the rows that it changed."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.engine = Engine(database, folder, FILMS)
        self.lane, self.worker = self.engine.lane(), self.engine.lane(self.engine.work)

    def rows(self) -> dict[Any, dict[str, Any]]:
        """Returns all rows as Debezium's images, by table and primary key."""
        found = {}
        with self.engine.database.connect() as session:
            session.execute("SET timezone = 'UTC'")
            for table in ("films", "cities", "stores", "inventory"):
                for id, text in session.execute(f"SELECT id, to_json(t)::text FROM {table} t".encode()).fetchall():
                    row = json.loads(text, parse_float=str)  # 1.00 and 1.000 are different images
                    if row.get("price") is not None:
                        row["price"] = str(row["price"])
                    found[table, id] = row
        return found

    def happen(self, statement: str) -> None:
        before = self.rows()
        txid, after = self.engine.execute(statement), self.rows()
        for place in before.keys() | after.keys():
            old, new = before.get(place), after.get(place)
            if old != new:
                op = "d" if new is None else "c" if old is None else "u"
                self.engine.add_event(txid, place[0], op, before=old, after=new)

    def documents(self) -> dict[str, Any]:
        self.engine.drain(self.lane, self.worker)
        found = self.engine.sink.read(list(self.engine.sink.ids()))
        return {id: json.loads(body, parse_float=_exact) for id, body in found.items()}

    def expected(self) -> dict[str, Any]:
        with self.engine.database.connect() as session:
            session.execute("SET timezone = 'UTC'")
            rows = session.execute(EXPECTED.encode()).fetchall()
        return {id: json.loads(body, parse_float=_exact) for id, body in rows}


def _exact(text: str) -> str:
    """Numbers with different texts are different."""
    return f"decimal {Decimal(text)}"


@pytest.fixture
def lists(database: Database, tmp_path: Path) -> Iterator[Lists]:
    database.execute(*TABLES)
    found = Lists(database, tmp_path)
    yield found
    found.engine.close()


def _different(have: dict[str, Any], want: dict[str, Any]) -> list[Any]:
    """Returns the fields that differ: the id, the name, and both values."""
    assert have.keys() == want.keys()
    return [
        (id, name, have[id].get(name), value)
        for id, document in want.items()
        for name, value in document.items()
        if have[id].get(name) != value
    ]


def _wrong(lists: Lists) -> list[str]:
    """Plays the history. Returns the statements after which the documents differ from SQL."""
    wrong = []
    for statement in HISTORY:
        lists.happen(statement)
        have, want = lists.documents(), lists.expected()
        wrong += [statement] if any(have.get(id) != want.get(id) for id in want | have) else []
    return wrong


def test_lists_of_groups_equal_sql_after_each_change(lists: Lists) -> None:
    for id in (1, 2, 3):
        lists.happen(f"UPDATE films SET title = title || '!' WHERE id = {id}")
    stores, kinds = set(), set()
    for statement in HISTORY:
        lists.happen(statement)
        documents = lists.documents()
        assert _different(documents, lists.expected()) == [], statement
        stores |= {one["store_id"] for document in documents.values() for one in document["copies"]}
        kinds |= {kind for document in documents.values() for kind in document["kinds"]}
    assert None in stores and None in kinds, "NULL is a group"
    for table in ("stores", "inventory"):
        txid = lists.engine.execute(f"TRUNCATE {table}")
        lists.engine.add_event(txid, table, "t")
        assert lists.documents() == lists.expected(), table
    assert {json.dumps(document["copies"]) for document in lists.documents().values()} == {"[]"}


def test_a_rule_that_marks_only_the_new_root_leaves_the_old_one_stale(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weaker rule must be detected, or the other test proves nothing."""
    resolve = Resolve.__call__

    def only_new(self: Resolve, change: ChangeEvent, uses: list[TableUse], dirty: Dirty) -> None:
        resolve(self, change if change.after is None else change._replace(before=None), uses, dirty)

    monkeypatch.setattr(Resolve, "__call__", only_new)
    assert HISTORY[3] in _wrong(lists), "a copy that moved to another film is still in the old one"


def test_a_rule_that_ignores_the_columns_of_groups_leaves_documents_stale(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weaker rule counts only the columns of aggregates and filters as used."""
    make = GroupedLevel._key

    def unused(self: GroupedLevel, number: int, text: str) -> Any:
        before = {node: set(node.used) for node in self.node.walk()}
        found = make(self, number, text)
        for node, used in before.items():
            node.used = used
        return found

    monkeypatch.setattr(GroupedLevel, "_key", unused)
    database.execute(*TABLES)
    lists = Lists(database, tmp_path)
    wrong = _wrong(lists)
    lists.engine.close()
    assert HISTORY[6] in wrong, "copies are still in the groups of the days before"


def test_expressions_that_postgresql_rejects_are_reported_once_with_their_line(lists: Lists) -> None:
    path = lists.engine.folder / "models" / "model.yaml"

    def refused(old: str, new: str) -> list[str]:
        path.write_text(FILMS.replace(old, new, 1))
        with pytest.raises(Fatal) as error:
            loader.load_checked(lists.engine.config, loader.load_declared(lists.engine.config)[0])
        return [str(one) for one in getattr(error.value, "each", [error.value])]

    (reported,) = refused("group_by: store_id", "group_by: [store_id, md5(store_id)]")
    assert "model.yaml:10: PostgreSQL rejects store_id, md5(store_id): function" in reported
    (reported,) = refused("order_by: count(*) desc", "order_by: md5(count(*))")
    assert "model.yaml:11: PostgreSQL rejects md5(count(*)): function" in reported
    (reported,) = refused("copies: count(*)", "copies: md5(store_id)")
    assert "model.yaml:19: PostgreSQL rejects md5(store_id): function" in reported


# -- on all real servers --------------------------------------------------------------------------------------

CUSTOMERS = """
name: {prefix}-customers
root: {{table: {schema}.customers}}
document:
  name: name
  orders:
    many: {schema}.orders
    on: {{customer_id: id}}
    where: amount > 0
    group_by: [status, amount >= 100]
    order_by: count(*) desc
    document: {{status: status, large: amount >= 100, orders: count(*), total: sum(amount), last: max(id)}}
sink:
  redis: {{key: "{prefix}:customer:{{id}}"}}
  elasticsearch: {{index: "{prefix}-customers", mapping: {{orders: {{type: nested}}}}}}
"""
EXPECTED_CUSTOMERS = """
SELECT c.id::text, json_build_object('name', name, 'orders', (
         SELECT coalesce(json_agg(to_jsonb(g) ORDER BY orders DESC, status, large), '[]') FROM (
           SELECT status, amount >= 100 AS large, count(*) AS orders, sum(amount) AS total, max(id) AS last
             FROM {schema}.orders WHERE customer_id = c.id AND amount > 0 GROUP BY status, amount >= 100) g))
  FROM {schema}.customers c"""


def test_lists_of_groups_on_all_servers(system: System) -> None:
    """Check, backfill, changes, a truncate, verify, and a search for one group."""
    model = f"{system.prefix}-customers"
    system.execute(
        "INSERT INTO {schema}.customers SELECT n, 'c' || n FROM generate_series(1, 50) n",
        """INSERT INTO {schema}.orders (id, customer_id, status, amount)
           SELECT n, 1 + n % 50, (ARRAY['new', 'paid', 'sent'])[1 + n * n % 7 % 3], n * 7 % 200
             FROM generate_series(1, 2000) n""",
    )
    system.declare("customers", CUSTOMERS)
    system.run("check", model)

    def expected() -> dict[str, Any]:
        return dict(system.database.query(EXPECTED_CUSTOMERS.format(schema=system.schema)))

    def in_redis() -> dict[str, Any]:
        prefix = f"{system.prefix}:customer:"
        with redis.Redis.from_url(system.redis) as client:
            keys = [key.decode() for key in client.scan_iter(f"{prefix}*", count=1000)]
            values: Any = client.mget(keys) if keys else []
        return {key.removeprefix(prefix): json.loads(v) for key, v in zip(keys, values, strict=True) if v}

    def search(query: dict[str, Any]) -> dict[str, Any]:
        url = f"{system.stack.elasticsearch}/{model}/_search?size=1000"
        found = urllib3.request("POST", url, json={"query": query}).json()
        return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}

    system.run("backfill", model)
    assert in_redis() == expected() and len(expected()) == 50
    system.start(model)
    system.execute(
        "UPDATE {schema}.orders SET status = 'sent' WHERE id % 11 = 0",
        "UPDATE {schema}.orders SET customer_id = 1 + (customer_id + 7) % 50 WHERE id % 13 = 0",
        "UPDATE {schema}.orders SET amount = amount + 60 WHERE id % 5 = 0",
        "DELETE FROM {schema}.orders WHERE id % 17 = 0",
        "DELETE FROM {schema}.customers WHERE id = 50",
    )
    want = expected()
    until(lambda: in_redis() == want, lambda: f"{in_redis()} is not {want}")
    until(lambda: system.documents(model) == want, "Elasticsearch has the same documents")
    large = [{"term": {"orders.status.keyword": "sent"}}, {"range": {"orders.total": {"gt": 900}}}]
    found = search({"nested": {"path": "orders", "query": {"bool": {"filter": large}}}})
    assert found == {
        id: document
        for id, document in want.items()
        if any(one["status"] == "sent" and one["total"] > 900 for one in document["orders"])
    }
    assert 0 < len(found) < len(want)
    system.run("verify", model)
    system.execute("TRUNCATE {schema}.orders")
    until(lambda: in_redis() == expected(), "no document has a group")
