"""A read model in a table of PostgreSQL: what applications see during changes, faults, manual edits and a resync.

The sink has a database of its own, and a role with the documented privileges and no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from syncer.clock import split_version
from tests.harness.postgres_servers import reads_database
from tests.harness.system import System
from tests.harness.waiting import until

HISTORY = """
name: {prefix}-history
root: {{table: {schema}.orders}}
document:
  order_id: id
  customer_id: customer_id
  customer: {{one: {schema}.customers, on: {{id: customer_id}}, value: name}}
  amount: amount
  parts: {{object: {{parts: parts, status: status}}}}
sink:
  postgres:
    table: read.order_history
    columns: {{amount: smallint}}
    indexes: [{{columns: [customer_id, order_id DESC]}}]
"""
EXPECTED = """
SELECT o.id, o.customer_id, c.name, o.amount, jsonb_build_object('parts', o.parts, 'status', o.status)
  FROM {schema}.orders o LEFT JOIN {schema}.customers c ON c.id = o.customer_id
 WHERE o.amount < 32768 ORDER BY o.id"""
ROWS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 20) n",
)


class History:
    """The read model of a system in its table, as applications see it."""

    def __init__(self, system: System, dsn: str) -> None:
        self.system, self.name, self.dsn = system, f"{system.prefix}-history", dsn
        system.environment["SYNCER_POSTGRES_SINK__DSN"] = dsn
        system.environment["SYNCER_PIPELINE__MAX_AGE"] = "1s"
        system.declare("history", HISTORY)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return session.execute(statement.encode()).fetchall()

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            session.execute(statement.encode())

    def rows(self) -> list[tuple[Any, ...]]:
        columns = "order_id, customer_id, customer, amount, parts"
        return self.query(f"SELECT {columns} FROM read.order_history ORDER BY order_id")

    def expected(self) -> list[tuple[Any, ...]]:
        return self.system.database.query(EXPECTED.format(schema=self.system.schema))

    def until_in_sync(self) -> None:
        until(lambda: self.rows() == self.expected(), lambda: f"{self.rows()}\n{self.expected()}")

    def verify(self, *options: str, expect: int = 0) -> dict[str, Any]:
        output = self.system.run("verify", *options, "--patience", "0", "--json", self.name, expect=expect)
        [report] = json.loads(output[output.index("[\n") :])
        return dict(report)


@pytest.fixture
def history(system: System) -> Iterator[History]:
    with reads_database(system.stack.postgres) as dsn:
        yield History(system, dsn)


def test_the_whole_way_from_the_first_row_to_a_resync(history: History) -> None:
    system, name = history.system, history.name
    system.execute(*ROWS)
    daemon = system.start(name)
    system.run("backfill", name)
    history.until_in_sync()
    system.execute(
        "UPDATE {schema}.customers SET name = 'Augusta' WHERE id = 1",
        "UPDATE {schema}.orders SET status = 'paid' WHERE id = 7",
        "DELETE FROM {schema}.orders WHERE id > 18",
        "INSERT INTO {schema}.orders (id, customer_id) VALUES (30, 3)",
    )
    history.until_in_sync()
    assert {split_version(version)[0] for (version,) in history.query("SELECT _version FROM read.order_history")} == {1}

    # A document that does not fit its column becomes a dead letter, and the others are written.
    system.execute("UPDATE {schema}.orders SET amount = 1000000 WHERE id = 5", "UPDATE {schema}.orders SET parts = 9")
    until(lambda: {row[4]["parts"] for row in history.rows() if row[0] != 5} == {9})
    [letter] = json.loads(system.run("dlq", "list", name, "--json"))
    assert letter["name"] == "5" and "out of range for type smallint" in letter["reason"]
    assert next(row[:4] for row in history.rows() if row[0] == 5) == (5, 2, "Grace", 100), "the older document stays"
    system.execute("UPDATE {schema}.orders SET amount = 7 WHERE id = 5")
    history.until_in_sync()
    until(lambda: json.loads(system.run("dlq", "list", name, "--json")) == [])

    # Manual edits are found and repaired.
    assert history.verify()["equal"]
    history.execute("UPDATE read.order_history_000001 SET customer = 'Mallory' WHERE _id = '3'")
    history.execute("DELETE FROM read.order_history_000001 WHERE _id = '4'")
    found = history.verify(expect=1)
    assert (found["differing"], found["missing"], found["orphaned"]) == (["3"], ["4"], [])
    history.verify("--repair")
    history.until_in_sync()

    # The watermark is in the same database as the documents.
    recent = "SELECT 1 FROM read.syncer_generations WHERE active AND taken_at > now() - interval '1 min'"
    until(lambda: history.query(recent) != [])

    # A lost table is filled again, also if the daemon did not run meanwhile.
    history.execute("TRUNCATE read.order_history_000001")
    history.until_in_sync()
    assert daemon.metric("syncer_sink_losses_total", model=name, kind="documents") == 1
    daemon.stop()
    # `check` reports a change of the table that would lose documents, with the statement that takes it back.
    history.execute("ALTER TABLE read.order_history_000001 SET UNLOGGED")
    output = " ".join(system.run("check", name, expect=1).split())
    assert 'ALTER TABLE "read"."order_history_000001" SET LOGGED' in output
    history.execute("ALTER TABLE read.order_history_000001 SET LOGGED")
    assert "UNLOGGED" not in system.run("check", name)
    history.execute("TRUNCATE read.order_history_000001")
    daemon = system.start(name, ready=False)
    history.until_in_sync()

    # A resync with other columns: readers see the old table until the new one is complete.
    history.execute("GRANT SELECT ON read.order_history TO PUBLIC")
    daemon.stop()
    system.declare("history", HISTORY.replace("amount: amount", "amount: amount::text").replace("amount: smallint", ""))
    output = system.run("resync", name, "--yes")
    assert "read.order_history_000001" in output
    assert {type(row[3]) for row in history.rows()} == {str} and len(history.rows()) == len(history.expected())
    [(granted,)] = history.query("SELECT has_table_privilege('pg_monitor', 'read.order_history', 'SELECT')")
    assert granted
    assert history.verify()["equal"]
