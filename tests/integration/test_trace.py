"""Traces documents on real servers: through joins, across moves and deletes, and while changes arrive."""

from __future__ import annotations

import json
import signal
from typing import Any

import psycopg
import pytest
import redis
import urllib3
from click.testing import CliRunner

from syncer import cli
from syncer.declaration.model import parse
from syncer.operations.trace.root import TracedRoot
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from tests.harness import Database
from tests.harness.process import SyncerProcess
from tests.harness.system import System
from tests.harness.waiting import until

TABLES = (
    "CREATE TABLE {schema}.products (id bigint PRIMARY KEY, name text NOT NULL, weight integer)",
    "CREATE TABLE {schema}.items (id bigint PRIMARY KEY, order_id bigint NOT NULL, product_id bigint NOT NULL)",
    "CREATE TABLE {schema}.stock (place text, sku numeric(6, 2), quantity integer, PRIMARY KEY (place, sku))",
    "CREATE INDEX ON {schema}.items (order_id)",
    "CREATE INDEX ON {schema}.items (product_id)",
    *(f"ALTER TABLE {{schema}}.{table} REPLICA IDENTITY FULL" for table in ("products", "items", "stock")),
)
BASKETS = """
name: {prefix}-baskets
root: {{table: {schema}.orders}}
document:
  status: status
  address: address
  customer: {{one: {schema}.customers, on: {{id: customer_id}}, value: name}}
  items:
    many: {schema}.items
    on: {{order_id: id}}
    document:
      product: {{one: {schema}.products, on: {{id: product_id}}, value: name}}
sink:
  redis: {{key: "{prefix}:basket:{{id}}"}}
  elasticsearch:
    index: {prefix}-baskets
    mapping: {{address: {{type: ip}}}}
    settings: {{number_of_shards: 1, number_of_replicas: 0}}
"""
STOCK = """
name: {prefix}-stock
root: {{table: {schema}.stock}}
document: {{quantity: quantity}}
sink: {{redis: {{key: "{prefix}:stock:{{id}}"}}}}
"""


@pytest.fixture
def system(system: System) -> System:
    """Two orders: the first has two items, the second has none."""
    system.execute(*TABLES)
    system.declare("orders", BASKETS)
    system.declare("summaries", STOCK)
    system.execute(
        "INSERT INTO {schema}.customers VALUES (1, 'Ada')",
        "INSERT INTO {schema}.orders (id, customer_id) VALUES (1, 1), (2, 1)",
        "INSERT INTO {schema}.products VALUES (10, 'pen'), (11, 'ink')",
        "INSERT INTO {schema}.items VALUES (100, 1, 10), (101, 1, 11)",
        "INSERT INTO {schema}.stock VALUES ('a|b', 1.5, 7)",
    )
    system.run("backfill")
    return system


def baskets(system: System) -> str:
    return f"{system.prefix}-baskets"


def trace(system: System, key: str, *options: str, model: str = "", expect: int = 0) -> dict[str, Any]:
    """Returns the report of a document. expect: the exit status."""
    command = ["trace", model or baskets(system), key, "--json", *options]
    found: dict[str, Any] = json.loads(system.run(*command, expect=expect))
    return found


def until_traced(system: System, key: str, row: str, operation: str, state: str = "acknowledged") -> dict[str, Any]:
    """Waits until a change of this row has reached a document. Returns the change."""

    def found() -> Any:
        return [change for change in changes(system, key, row, operation) if change["state"] == state]

    return dict(until(found, lambda: changes(system, key, row, operation))[-1])


def changes(system: System, key: str, row: str, operation: str) -> list[dict[str, Any]]:
    """Returns the changes of a row that reached a document, in sync or not.

    row: table and key, such as `items 100`.
    """
    command = ["trace", baskets(system), key, "--json", "--patience", "0"]
    done = CliRunner().invoke(cli.main, command, env=system.environment, catch_exceptions=False)
    assert done.exit_code in (0, 1), done.output
    table, _, id = row.partition(" ")
    wanted = f"{system.schema}.{table}", id, operation
    return [c for c in json.loads(done.stdout)["changes"] if (c["table"], c["key"], c["operation"]) == wanted]


def test_a_trace_shows_changes_of_joined_rows_and_the_rows_of_the_document(system: System) -> None:
    system.start()
    system.execute("UPDATE {schema}.products SET name = 'fountain pen' WHERE id = 10")
    change = until_traced(system, "1", "products 10", "UPDATE")
    assert [way["path"] for way in change["through"]] == ["items.product"]
    assert change["before"]["name"] == "pen" and change["after"]["name"] == "fountain pen"
    assert change["visible"] and change["committed"] <= change["arrived"]
    assert changes(system, "2", "products 10", "UPDATE") == []

    report = trace(system, "1")
    assert report["in_sync"] and report["under_way"] == [] and report["missing"] == {}
    assert report["postgres"]["rows"] == {
        "": ["1"],
        "customer": ["1"],
        "items": ["100", "101"],
        "items.product": ["10", "11"],
    }
    for sink in report["sinks"]:
        assert sink["state"] == "equal" and sink["epoch"] == 1 and sink["diff"] == []
        assert sink["document"]["items"] == [{"product": "fountain pen"}, {"product": "ink"}]
        assert 0 < sink["clock"] <= report["postgres"]["clock"]
    assert {c["operation"] for c in report["changes"]} == {"INSERT", "UPDATE"}
    # Commit times order the changes of all tables.
    assert [c["committed"] for c in report["changes"]] == sorted(c["committed"] for c in report["changes"])

    system.execute("UPDATE {schema}.products SET weight = 3 WHERE id = 10")
    until_traced(system, "1", "products 10", "UPDATE", state="ignored")
    output = system.run("trace", baskets(system), "1")
    assert f"{baskets(system)} 1: in sync" in output
    assert "linked rows of items.product: 10, 11" in output
    assert 'UPDATE name "pen" → "fountain pen"' in output and "items.product (not used)" in output
    assert "Not recorded: when past changes were rendered" in output


def test_a_moved_child_is_in_the_traces_of_both_roots(system: System) -> None:
    system.start()
    system.execute("UPDATE {schema}.items SET order_id = 2 WHERE id = 101")
    left, joined = (until_traced(system, key, "items 101", "UPDATE")["through"] for key in ("1", "2"))
    assert left[0]["images"] == ["before"] and joined[0]["images"] == ["after"]
    # Product 11 belongs to order 2 now. It may have changed while it belonged to order 1.
    system.execute("UPDATE {schema}.products SET name = 'blue ink' WHERE id = 11")
    [now] = until_traced(system, "2", "products 11", "UPDATE")["through"]
    [before] = until_traced(system, "1", "products 11", "UPDATE")["through"]
    assert not now["earlier"] and before["earlier"]
    system.execute("DELETE FROM {schema}.items WHERE id = 101")
    assert until_traced(system, "2", "items 101", "DELETE")["through"][0]["images"] == ["before"]
    assert changes(system, "1", "items 101", "DELETE") == []


def test_the_trace_of_a_deleted_root_shows_its_last_state(system: System) -> None:
    system.start()
    system.execute("DELETE FROM {schema}.items WHERE order_id = 1", "DELETE FROM {schema}.orders WHERE id = 1")
    until_traced(system, "1", "orders 1", "DELETE")
    report = trace(system, "1")
    assert report["in_sync"] and not report["postgres"]["row"] and report["postgres"]["document"] is None
    assert [sink["state"] for sink in report["sinks"]] == ["absent", "absent"]
    assert all(sink["version"] for sink in report["sinks"])  # the sinks remember the delete
    assert len(changes(system, "1", "items 100", "DELETE")) == 1
    # The delete event of the order shows its customer, who changed before.
    assert changes(system, "1", "customers 1", "INSERT")[0]["through"][0]["earlier"]


def test_a_dead_letter_explains_why_a_document_differs(system: System) -> None:
    system.start()
    system.execute("UPDATE {schema}.orders SET address = 'no address' WHERE id = 1")
    until_traced(system, "1", "orders 1", "UPDATE")
    report = trace(system, "1", "--patience", "0", expect=1)
    [letter] = report["dead_letters"]
    assert "no address" in letter["reason"]
    states = {sink["sink"].partition(":")[0]: sink["state"] for sink in report["sinks"]}
    assert states == {"redis": "equal", "elasticsearch": "differing"}
    output = system.run("trace", baskets(system), "1", "--patience", "0", expect=1)
    assert f"dead letter {letter['handle']}" in output
    assert f"→ syncer dlq show {baskets(system)} {letter['handle']}" in output
    assert '-  "address": null' in output and '+  "address": "no address"' in output
    assert trace(system, "2")["dead_letters"] == []


def test_a_document_that_was_edited_by_hand_is_shown_as_a_diff(system: System) -> None:
    with redis.Redis.from_url(system.stack.redis) as client:
        key = f"{system.prefix}:basket:1"
        edited = json.loads(client.get(key) or b"") | {"status": "edited"}
        client.set(key, json.dumps(edited))
    url = f"{system.stack.elasticsearch}/{baskets(system)}/_doc/1"
    assert urllib3.request("DELETE", url).status == 200
    report = trace(system, "1", "--patience", "0", expect=1)
    states = {sink["sink"].partition(":")[0]: sink for sink in report["sinks"]}
    assert states["redis"]["state"] == "differing" and states["elasticsearch"]["state"] == "missing"
    assert [line for line in states["redis"]["diff"] if line[0] in "+-"][2:] == [
        '-  "status": "edited"',
        '+  "status": "new"',
    ]
    output = system.run("trace", baskets(system), "1", "--patience", "0", expect=1)
    assert "1: DIFFERENT" in output and f"syncer verify {baskets(system)} --repair" in output
    system.run("verify", baskets(system), "--repair", "--patience", "0")
    assert trace(system, "1")["in_sync"]


def test_a_change_that_waits_for_a_daemon_is_under_way(system: System) -> None:
    system.execute("UPDATE {schema}.orders SET status = 'paid' WHERE id = 1")
    until_traced(system, "1", "orders 1", "UPDATE", state="waiting")
    report = trace(system, "1")  # the exit status is 0, although the sinks differ
    assert not report["in_sync"]
    assert report["under_way"] == ["not acknowledged yet: 1 change of this document"]
    output = system.run("trace", baskets(system), "1")
    assert "1: changes are under way" in output and '+  "status": "paid"' in output
    assert "read model: no daemon is alive" in output
    report = trace(system, "1", "--since", "1ms")
    assert report["changes"] == [] and "longer --since" in report["under_way"][0]
    assert trace(system, "1", "--max-records", "1")["shortened"]


def test_composite_keys_are_written_as_ids_and_read_in_every_text_of_their_types(system: System) -> None:
    system.start()
    system.execute("UPDATE {schema}.stock SET quantity = 8")
    model = f"{system.prefix}-stock"
    until(lambda: trace(system, "a\\|b|1.5", model=model)["sinks"][0]["document"] == {"quantity": 8})
    report = trace(system, r"a\|b|1.5", model=model)
    assert report["key"] == r"a\|b|1.50"
    assert [change["operation"] for change in report["changes"]] == ["INSERT", "UPDATE"]
    assert "the key is place|sku" in system.run("trace", model, "a", expect=2)
    assert "invalid input syntax" in system.run("trace", model, "a|x", expect=2)
    assert "no read model called nope" in system.run("trace", "nope", "1", expect=2)
    assert "must be a duration" in system.run("trace", model, "a|1", "--since", "soon", expect=2)
    system.declare("other", STOCK.replace("-stock", "-other"))
    assert "the read model has never run" in system.run("trace", f"{system.prefix}-other", "a|1", expect=3)
    output = system.run("trace", model, "a|1", expect=1)
    assert "nothing is known about this key" in output and "searched: the root table" in output


def test_a_server_that_does_not_answer_is_named_and_the_rest_is_shown(system: System) -> None:
    settings = dict(system.environment)
    system.environment = settings | {"SYNCER_REDIS__URL": "redis://127.0.0.1:1"}
    report = trace(system, "1", expect=4)
    assert list(report["missing"]) == [f"redis:{system.prefix}:basket:{{id}}"]
    assert {sink["state"] for sink in report["sinks"]} == {"unknown", "equal"} and report["changes"]
    system.environment = settings | {"SYNCER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    report = trace(system, "1", expect=4)
    assert list(report["missing"]) == ["Kafka"] and report["postgres"]["document"]["status"] == "new"
    system.environment = settings | {"SYNCER_POSTGRES__DSN": "host=127.0.0.1 port=1 dbname=x user=x"}
    report = trace(system, "1", expect=4)
    assert list(report["missing"]) == ["PostgreSQL"] and report["generation"] == 1


def test_follow_shows_a_change_its_acknowledgement_and_the_new_document(system: System) -> None:
    system.start()
    following = {
        options: SyncerProcess(
            ("trace", baskets(system), "1", "--follow", *options),
            system.environment,
            system.folder / f"follow{len(options)}.log",
            system.folder,
        )
        for options in ((), ("--json",))
    }
    text, lines = (process.log for process in following.values())
    until(lambda: "Not recorded" in text.read_text() and lines.read_text(), lambda: text.read_text())
    system.execute("UPDATE {schema}.products SET name = 'pencil' WHERE id = 10")

    def events() -> list[dict[str, Any]]:
        return [json.loads(line) for line in lines.read_text().splitlines()]

    def complete() -> bool:
        found = [event for event in events() if event["type"] == "sink"]
        return len(found) >= 2 and any(event.get("state") == "acknowledged" for event in events())

    until(complete, lines.read_text)
    until(lambda: text.read_text().count('+      "product": "pencil"') == 2, text.read_text)
    report, *later = events()
    assert report["type"] == "report" and report["in_sync"]
    change = next(event for event in later if event["type"] == "change")
    assert (change["table"], change["key"]) == (f"{system.schema}.products", "10")
    documents = [event["document"]["items"][0] for event in later if event["type"] == "sink"]
    assert documents == [{"product": "pencil"}] * 2
    until(lambda: 'products 10  UPDATE name "pen" → "pencil"' in text.read_text(), text.read_text)
    for process in following.values():
        process.process.send_signal(signal.SIGINT)
        assert process.process.wait(10) == 130, process.log.read_text()


@pytest.mark.parametrize(
    ("type_", "key", "same", "other"),
    [
        ("numeric", "1.0", "1.00", "2"),
        ('text COLLATE public."c%i"', "abc", "ABC", "b"),
        ("char(5)", "ab", "ab   ", "c"),
        ("timestamptz", "2024-02-29 12:00:00+02", "2024-02-29 10:00:00+00", "2024-03-01 00:00:00+00"),
        ("bigint", "7", "7", "77"),
    ],
)
def test_postgresql_compares_keys_and_links_whose_texts_differ(
    database: Database, type_: str, key: str, same: str, other: str
) -> None:
    database.execute(
        "CREATE COLLATION public.\"c%i\" (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        f'CREATE TABLE "100%s" ("k%" {type_} PRIMARY KEY, "l%" {type_})',
        f'CREATE TABLE kids (n int PRIMARY KEY, "k%" {type_})',
        f'CREATE TABLE friends (n int PRIMARY KEY, "l%" {type_} UNIQUE)',
        f"INSERT INTO \"100%s\" VALUES ('{key}', '{same}'), ('{other}', NULL)",
        f"INSERT INTO kids VALUES (1, '{same}'), (2, '{other}')",
        f"INSERT INTO friends VALUES (3, '{key}'), (4, '{other}')",
    )
    text = """\
name: odd
root: {table: public."100%s"}
document:
  kids: {many: public.kids, on: {'"k%"': '"k%"'}, value: n}
  friend: {one: public.friends, on: {'"l%"': '"l%"'}, value: n}
sink: {memory: {}}
"""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        loaded = loader.compile_model(connection, parse(text, "odd.yaml"))
    rows = SnapshotReader({"conninfo": database.dsn}, loaded.compiled)
    root = TracedRoot(loaded, rows, (same,))
    assert (root.key[0],) in database.query('SELECT "k%"::text FROM "100%s"')
    assert root.render(0).rows == {"": [root.key], "kids": [("1",)], "friend": [("3",)]}
    for one in root.sql.uses:
        leading = root.leading(one, [(key,), (same,), (other,)]) | ({root.key} if one.by_key else set())
        assert (key,) in leading or root.key in leading
        assert (same,) in leading and (other,) not in leading
    root.close()
