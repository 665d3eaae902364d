"""Bad records, rows, tables and declarations: one clear error each, no lost changes, and other read models run on."""

from __future__ import annotations

import json
from typing import Any

import urllib3
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.harness.daemon import Daemon
from tests.harness.system import ORDERS, System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"
MOVED = "UPDATE {schema}.orders SET customer_id = 1 WHERE id = 1"  # from customer 2
BACK = "UPDATE {schema}.orders SET customer_id = 2 WHERE id = 1"
DELETED = "DELETE FROM {schema}.orders WHERE id = 3"  # of customer 2; the event contains the old row
MANY = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 3000) n"


def failed(daemon: Daemon, model: str, *words: str) -> None:
    """Asserts that the read model failed with one error that contains all words, and that the other one runs."""
    reason = daemon.until_reason(model, "failed")
    for word in words:
        assert word in reason, reason
    assert len(daemon.logged("read model failed", model=model)) == 1
    [other] = {name for name in daemon.models() if name != model}
    daemon.until_state(other, "running")
    assert f"{model} is failed: {reason}" in daemon.get("/readyz")[1]
    assert daemon.get("/livez") == (200, "ok\n")


# -- records ----------------------------------------------------------------------------------------------


def record(**changes: Any) -> bytes:
    source = {"schema": "SCHEMA", "table": "orders", "txId": 1, "ts_ms": 1}
    event = {"op": "c", "before": None, "after": {"id": 1, "customer_id": 1}, "source": source}
    return json.dumps(event | changes).encode()


WORDS = """
name: {prefix}-words
root: {{table: {schema}.words}}
document: {{n: n}}
sink: {{redis: {{key: "{prefix}:word:{{id}}"}}}}
"""
SOURCE = {"schema": "SCHEMA", "table": "orders"}
BAD = [
    b"\xff\xfe no JSON",
    b"[1, 2]",
    b"{}",
    record(op=["c"]),
    record(after="text"),
    record(after=None),
    record(op="d"),
    record(source=None),
    record(source=SOURCE | {"txId": "x"}),
    record(source=SOURCE | {"schema": ["x"]}),
    record(source=SOURCE | {"table": "nobody"}),
]


def test_unreadable_records_become_dead_letters(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    bad = [one.replace(b"SCHEMA", system.schema.encode()) for one in BAD]
    for one in bad:
        system.produce("orders", one)
    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    system.until_in_sync()
    for model in (system.orders, system.summaries):
        until(lambda m=model: len(system.dead_letters(m)) == len(bad))  # type: ignore[misc]
        assert sorted(system.dead_letters(model)) == sorted(bad)
        system.until_status(model, state="running", dead_letters=len(bad), lag_records=0)
        letters = daemon.logged("dead letter written", model=model)
        assert len(letters) == len(bad)
        assert all(one["where"].startswith(system.topic("orders")) and one["hint"] for one in letters)
        assert f"the change event is of {system.schema}.nobody, which is not a table of this read model" in str(letters)


# -- rows and documents -------------------------------------------------------------------------------------


def test_a_document_rejected_by_elasticsearch_does_not_block_the_others(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE, "UPDATE {schema}.orders SET address = 'no address' WHERE id = 3")
    until(lambda: system.dead_letters(system.orders))
    system.execute("UPDATE {schema}.orders SET status = 'paid' WHERE id <> 3")
    wanted = system.expected(system.orders)
    wanted["3"] |= {"address": None}  # the previous value
    until(lambda: system.documents(system.orders) in (wanted, {k: v for k, v in wanted.items() if k != "3"}))
    [letter] = daemon.logged("dead letter written", model=system.orders)
    assert letter["where"] == "document 3" and "no address" in letter["why"]
    system.until_status(system.orders, state="running", dead_letters=1, lag_records=0)
    system.execute("UPDATE {schema}.orders SET address = '10.0.0.1' WHERE id = 3")
    system.until_in_sync()
    until(lambda: system.status_of(system.orders)["dead_letters"] == 0)


def test_hazard_24_a_row_that_fails_to_render_does_not_affect_other_rows(system: System) -> None:
    system.execute(CUSTOMERS, MANY, "UPDATE {schema}.orders SET parts = 0 WHERE id IN (7, 1500, 2999)")
    output = system.run("backfill", system.orders, expect=1)
    assert "3,000" in output and "3 documents were rejected" in output
    assert sorted(map(int, system.documents(system.orders))) == [n for n in range(1, 3001) if n not in (7, 1500, 2999)]
    daemon = system.start()
    system.execute("UPDATE {schema}.orders SET status = 'paid', parts = CASE WHEN id IN (8, 2999) THEN 0 ELSE 1 END")
    until(
        lambda: {one["status"] for id, one in system.documents(system.orders).items() if id != "8"} == {"paid"},
        daemon.log.read_text,
    )
    assert system.documents(system.orders)["8"]["status"] == "new"
    until(lambda: system.status_of(system.orders)["dead_letters"] == 2)
    letters = daemon.logged("dead letter written", model=system.orders)
    assert letters and all("division by zero" in one["why"] and one["hint"] for one in letters)
    # Rows 7 and 1500 are rejected only if the daemon renders them before the update.
    about = {one["where"].removeprefix(f"{system.orders}, document ") for one in letters}
    assert {"8", "2999"} <= about <= {"7", "8", "1500", "2999"}
    system.execute("UPDATE {schema}.orders SET parts = 2 WHERE parts = 0")
    system.until_in_sync()
    until(lambda: system.status_of(system.orders)["dead_letters"] == 0)


def test_a_row_with_an_empty_key_becomes_a_dead_letter_and_is_reported_as_missing(system: System) -> None:
    system.execute(
        "CREATE TABLE {schema}.words (id text PRIMARY KEY, n int)",
        "INSERT INTO {schema}.words VALUES ('', 1), ('a', 2)",
    )
    system.declare("words", WORDS)
    model = f"{system.prefix}-words"
    assert "1 document was rejected" in system.run("backfill", model, expect=1)
    assert "the id is empty" in system.run("dlq", "list", model)
    assert "missing: (empty)" in system.run("verify", model, "--patience", "0", expect=1)


# -- tables -------------------------------------------------------------------------------------------------


def test_a_dropped_column_stops_only_its_read_model(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    system.until_in_sync()
    system.execute("ALTER TABLE {schema}.orders DROP COLUMN amount", "UPDATE {schema}.orders SET status = 'paid'")
    failed(daemon, system.orders, "amount", "orders.yaml:7", f"{system.schema}.orders")
    system.execute("INSERT INTO {schema}.orders (id, customer_id) VALUES (6, 1)")
    system.until_in_sync(system.summaries)
    system.until_status(system.orders, state="failed")
    system.until_status(system.summaries, state="running")
    daemon.stop()
    system.execute("ALTER TABLE {schema}.orders ADD COLUMN amount integer NOT NULL DEFAULT 7")
    daemon = system.start()
    until(lambda: daemon.logged("re-rendering all documents"))  # a column with the same name but other values
    system.until_in_sync()


def test_hazard_02_a_table_without_the_required_identity_is_refused_at_start_and_while_running(
    system: System,
) -> None:
    system.execute("ALTER TABLE {schema}.orders REPLICA IDENTITY DEFAULT", CUSTOMERS, FIVE)
    fix = f"ALTER TABLE {system.schema}.orders REPLICA IDENTITY FULL"
    assert fix in system.run("check", expect=1)
    daemon = system.start(ready=False)
    failed(daemon, system.summaries, "replica identity", f"syncer check {system.summaries}")
    assert "replica identity" in system.run("backfill", system.summaries, expect=3)
    daemon.stop()
    system.execute(fix)
    daemon = system.start()
    system.run("backfill")
    system.until_in_sync()
    system.execute("ALTER TABLE {schema}.orders REPLICA IDENTITY DEFAULT")
    failed(daemon, system.summaries, "replica identity", f"syncer check {system.summaries}")
    system.execute(DELETED, fix)
    daemon.stop()
    daemon = system.start()  # The identity is valid again. Updates written in the meantime lack the old row.
    until(lambda: daemon.logged("re-rendering all documents", model=system.summaries))
    system.until_in_sync()
    assert not daemon.logged("read model failed"), daemon.log.read_text()


def test_hazard_02_an_identity_that_was_weakened_briefly_while_a_row_moved(system: System) -> None:
    """The identity is weak within one transaction only, as in a migration. No query can see this."""
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill")
    daemon = system.start()
    system.until_in_sync()
    full = "ALTER TABLE {schema}.orders REPLICA IDENTITY FULL"
    system.execute(f"ALTER TABLE {{schema}}.orders REPLICA IDENTITY DEFAULT; {MOVED}; {full}")
    system.until_in_sync()
    [found] = daemon.logged("re-rendering all documents")
    assert "updates do not contain the old row" in found["why"]
    system.execute(f"ALTER TABLE {{schema}}.orders REPLICA IDENTITY DEFAULT; {BACK}; {full}")
    system.until_in_sync()
    assert len(daemon.logged("re-rendering all documents")) > 1, "it was handed out before the update"
    assert not daemon.logged("read model failed"), daemon.log.read_text()


LINES_OF = "SELECT id, ARRAY(SELECT id FROM {schema}.lines WHERE order_id = o.id ORDER BY 1) FROM {schema}.orders o"
LINES = """
name: {prefix}-lines
root: {{table: {schema}.orders}}
document: {{lines: {{many: {schema}.lines, on: {{order_id: id}}, order_by: id, value: id}}}}
sink: {{redis: {{key: "{prefix}:summary:lines-{{id}}"}}}}
"""


def test_hazard_02_a_partition_created_by_the_application_needs_an_identity_but_no_resync(
    system: System,
) -> None:
    """Rows that were changed in between are correct too, although their events lack old values."""
    system.execute(
        """CREATE TABLE {schema}.lines (id int, k int, order_id bigint, PRIMARY KEY (id, k))
           PARTITION BY LIST (k)""",
        "CREATE INDEX ON {schema}.lines (order_id)",
        "CREATE TABLE {schema}.lines1 PARTITION OF {schema}.lines FOR VALUES IN (1)",
        "ALTER TABLE {schema}.lines1 REPLICA IDENTITY FULL",
        CUSTOMERS,
        FIVE,
        "INSERT INTO {schema}.lines SELECT n, 1, n FROM generate_series(1, 5) n",
    )
    system.declare("lines", LINES)
    model = f"{system.prefix}-lines"
    system.run("backfill", model)
    daemon = system.start(model)
    system.execute(
        "CREATE TABLE {schema}.lines2 PARTITION OF {schema}.lines FOR VALUES IN (2)",
        "INSERT INTO {schema}.lines SELECT 10 + n, 2, n FROM generate_series(1, 5) n",
        "UPDATE {schema}.lines SET k = 2 WHERE id IN (1, 2)",
    )
    reason = daemon.until_reason(model, "failed")
    assert "replica identity" in reason and "the read model continues" in reason and "resync" not in reason
    system.execute(
        "UPDATE {schema}.lines SET order_id = 5 WHERE id IN (2, 12, 13)",
        "UPDATE {schema}.lines SET order_id = 4 WHERE id = 13",
        "DELETE FROM {schema}.lines WHERE id IN (1, 14)",
        "ALTER TABLE {schema}.lines2 REPLICA IDENTITY FULL",
    )
    daemon.stop(expect=3)  # without the restart, it would continue after a minute
    daemon = system.start(model)
    found = system.database.query(LINES_OF.format(schema=system.schema))
    wanted = {f"lines-{id}": {"lines": ids} for id, ids in found}
    assert wanted["lines-5"] == {"lines": [2, 5, 12, 15]}
    until(lambda: system.documents(system.summaries) == wanted, lambda: f"{wanted} {daemon.log.read_text()}")
    assert daemon.logged("re-rendering all documents") and not daemon.logged("read model failed")
    assert "equal" in system.run("verify", model)


def test_a_column_whose_new_type_the_index_cannot_hold_is_reported_and_other_documents_are_written(
    system: System,
) -> None:
    """Each document equals its rows in PostgreSQL, or has a dead letter."""
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill")
    daemon = system.start()
    system.until_in_sync()
    system.execute(
        "ALTER TABLE {schema}.orders ALTER status DROP DEFAULT, ALTER status TYPE jsonb "
        """USING CASE id WHEN 3 THEN '{{"no": "text"}}' ELSE to_jsonb(upper(status)) END"""
    )
    system.until_in_sync(system.summaries)
    wanted = system.expected(system.orders)
    wanted["3"] |= {"status": "new"}  # the previous value
    until(lambda: system.documents(system.orders) == wanted, lambda: system.differences(system.orders))
    until(lambda: system.status_of(system.orders)["dead_letters"] == 1)
    daemon.until_ready()
    status = system.until_status(system.orders, state="running", last_error="")
    for words in (
        f"{system.schema}.orders.status was text and is now jsonb",
        "status: mapped as text, which cannot hold all jsonb values",
        f"syncer resync {system.orders}",
    ):
        assert words in status["reason"] and words in daemon.status(system.orders)["reason"]
    assert "cannot hold all jsonb" in system.run("check", system.orders, expect=1)
    system.run("resync", system.orders, "--yes")
    system.until_in_sync()
    until(lambda: system.status_of(system.orders)["reason"] == "", lambda: system.status_of(system.orders))
    assert system.status_of(system.orders)["dead_letters"] == 0
    system.run("check", system.orders)


# -- declarations, indexes, offsets, clocks -----------------------------------------------------------------


def test_a_changed_declaration_is_refused_until_a_resync(system: System) -> None:
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill")
    running = system.start()
    system.declare("orders", ORDERS.replace("  status: status\n", "  state: status\n"))
    failed(other := system.start(ready=False), system.orders, "was changed", f"syncer resync {system.orders}")
    other.stop()
    assert "was changed" in system.run("backfill", system.orders, expect=3)
    system.run("resync", system.orders, "--yes")
    assert {"state", "id", "each", "address", "customer"} == set(system.documents(system.orders)["1"])
    aliases = urllib3.request("GET", f"{system.stack.elasticsearch}/_alias/{system.orders}").json()
    assert list(aliases) == [f"{system.orders}-000002"]
    old = urllib3.request("GET", f"{system.stack.elasticsearch}/{system.orders}-000001/_count").json()
    assert old["count"] == 5
    # The running daemon also switched to the new declaration.
    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    until(
        lambda: {one["state"] for one in system.documents(system.orders).values()} == {"paid"},
        running.log.read_text,
    )
    assert system.status_of(system.orders)["generation"] == 2
    running.until_ready()


def test_hazard_22_a_deleted_index_is_reported_and_not_recreated_with_some_documents(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    system.until_in_sync()
    urllib3.request("DELETE", f"{system.stack.elasticsearch}/{system.orders}-000001")
    system.execute("UPDATE {schema}.orders SET status = 'paid' WHERE id = 1")
    failed(daemon, system.orders, "the index is missing", f"syncer resync {system.orders}")
    daemon.stop()
    daemon = system.start(ready=False)
    reason = daemon.until_reason(system.orders, "failed")
    assert "is missing, and so are its documents" in reason and f"syncer resync {system.orders}" in reason
    system.run("resync", system.orders, "--yes")
    system.until_in_sync()
    daemon.until_ready()


def test_hazard_23_every_sink_detects_a_lost_epoch_record(system: System) -> None:
    """Without this check, the syncer would write versions that are too low, or an index that nobody reads."""
    system.execute(CUSTOMERS, FIVE)
    for model in (system.orders, system.summaries):
        system.run("backfill", model)
        system.run("resync", model, "--yes")
    system.until_in_sync()
    admin = AdminClient({"bootstrap.servers": system.stack.kafka})
    topic = f"{system.prefix}.state"
    admin.delete_topics([topic])[topic].result(10)
    until(lambda: topic not in admin.list_topics(timeout=10).topics)
    daemon = system.start(ready=False)
    for model in (system.orders, system.summaries):
        reason = daemon.until_reason(model, "failed")
        assert "of a later epoch than the recorded one" in reason and f"syncer resync {model}" in reason
    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    for model in (system.orders, system.summaries):
        system.run("resync", model, "--yes")
    system.until_in_sync()
    daemon.until_ready()


def test_records_that_kafka_has_deleted_require_a_resync(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    system.until_in_sync()
    daemon.stop()
    system.execute("UPDATE {schema}.orders SET status = 'paid'", "DELETE FROM {schema}.orders WHERE id = 5")
    topic = system.topic("orders")
    until(lambda: sum(system.kafka_admin().ends([topic]).values()) == 11)
    admin = AdminClient({"bootstrap.servers": system.stack.kafka})
    trimmed = [TopicPartition(*at, end) for at, end in system.kafka_admin().ends([topic]).items()]
    for deletion in admin.delete_records(trimmed).values():
        deletion.result(10)
    daemon = system.start(ready=False)
    for model in (system.orders, system.summaries):
        reason = daemon.until_reason(model, "failed")
        assert "no longer has the records" in reason and topic in reason and f"syncer resync {model}" in reason
    system.run("resync", system.orders, "--yes")
    system.run("resync", system.summaries, "--yes")
    system.until_in_sync()
    daemon.until_ready()


def test_a_clock_that_ran_backwards_requires_a_resync(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    system.until_in_sync()
    daemon.stop()
    state = system.state_store()
    recorded = state.load()[f"{system.orders}/1/clock"]
    state.save(f"{system.orders}/1/clock", recorded | {"clock": recorded["clock"] + 1_000_000})
    daemon = system.start(ready=False)
    failed(
        daemon,
        system.orders,
        "ran backwards",
        str(recorded["clock"] + 1_000_000),
        f"syncer resync {system.orders}",
    )
    daemon.stop()
    state.save(f"{system.orders}/1/clock", recorded)  # as if the server's clock had caught up
    daemon = system.start(ready=False)
    failed(daemon, system.orders, "ran backwards", "detected", f"syncer resync {system.orders}")
    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    system.until_in_sync(system.summaries)
    system.run("resync", system.orders, "--yes")
    system.until_in_sync()
    daemon.until_ready()
    state.save(f"{system.summaries}/1/backwards", {"why": "another process saw it"})
    failed(daemon, system.summaries, "ran backwards", "another process saw it")
    daemon.stop()
    state.save(f"{system.summaries}/1/backwards", {})
    state.save(f"{system.summaries}/1/clock", state.load()[f"{system.summaries}/1/clock"] | {"system": 1})
    failed(system.start(ready=False), system.summaries, "another history", f"syncer resync {system.summaries}")
