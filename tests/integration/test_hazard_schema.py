"""Alterations of tables that make documents wrong without a change event.

The daemon must detect them while it runs and when it starts. Debezium 3.6 with PostgreSQL 15 sends no event for any
of them.
"""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from tests.harness.daemon import Daemon
from tests.harness.system import System
from tests.harness.waiting import until

SCHEMA = (
    "CREATE TYPE {schema}.mood AS ENUM ('sad', 'glad')",
    """CREATE TABLE {schema}.things (id int, k int, n int, mood {schema}.mood DEFAULT 'sad', spare int,
       PRIMARY KEY (k, id)) PARTITION BY LIST (k)""",
    "CREATE TABLE {schema}.things1 PARTITION OF {schema}.things FOR VALUES IN (1)",
    "CREATE TABLE {schema}.things2 PARTITION OF {schema}.things FOR VALUES IN (2)",
    "CREATE TABLE {schema}.notes (id int PRIMARY KEY, note text)",
    "INSERT INTO {schema}.things SELECT n, 1 + n % 2, n FROM generate_series(1, 20) n",
    "INSERT INTO {schema}.notes SELECT n, 'note ' || n FROM generate_series(1, 20) n",
)
FIRST = 40  # rows
THINGS = """
name: {prefix}-things
root: {{table: {schema}.things}}
document: {{n: n, mood: mood, note: {{one: {schema}.notes, on: {{id: id}}, value: note}}}}
sink:
  elasticsearch:
    index: {prefix}-things
    settings: {{number_of_shards: 1, number_of_replicas: 0}}
"""
EXPECTED = """
SELECT k || '|' || t.id, json_build_object('n', n, 'mood', mood, 'note', note)
  FROM {schema}.things t LEFT JOIN {schema}.notes USING (id)"""
SILENT = {
    "a leaf truncated": ("TRUNCATE {schema}.things1",),
    "a leaf detached": ("ALTER TABLE {schema}.things DETACH PARTITION {schema}.things1",),
    "a leaf dropped": ("DROP TABLE {schema}.things1",),
    "a leaf with rows attached": (
        "CREATE TABLE {schema}.more (LIKE {schema}.things INCLUDING ALL)",
        "INSERT INTO {schema}.more VALUES (100, 3, 100), (101, 3, 101)",
        "ALTER TABLE {schema}.things ATTACH PARTITION {schema}.more FOR VALUES IN (3)",
    ),
    "a column's type altered, using": ("ALTER TABLE {schema}.things ALTER n TYPE int USING n * 10",),
    "a child's column altered, using": ("ALTER TABLE {schema}.notes ALTER note TYPE text USING upper(note)",),
    "columns widened": (  # a key, a link and values
        "ALTER TABLE {schema}.things ALTER id TYPE bigint, ALTER n TYPE bigint USING n * 10",
        "ALTER TABLE {schema}.notes ALTER id TYPE bigint, ALTER note TYPE varchar(99) USING upper(note)",
    ),
    "two columns swapped by rename": (
        "ALTER TABLE {schema}.things RENAME n TO was_n",
        "ALTER TABLE {schema}.things RENAME spare TO n",
    ),
    "tables swapped by rename": (
        "CREATE TABLE {schema}.other (LIKE {schema}.notes INCLUDING ALL)",
        "INSERT INTO {schema}.other SELECT n, 'other ' || n FROM generate_series(1, 15) n",
        "ALTER TABLE {schema}.notes RENAME TO old",
        "ALTER TABLE {schema}.other RENAME TO notes",
    ),
    "dropped and created": (
        "DROP TABLE {schema}.notes",
        "CREATE TABLE {schema}.notes (id bigint PRIMARY KEY, note text)",
    ),
    "an enum's value renamed": ("ALTER TYPE {schema}.mood RENAME VALUE 'sad' TO 'blue'",),
    # afterwards, all definitions are as before
    "a leaf detached, updated and attached": (
        "ALTER TABLE {schema}.things DETACH PARTITION {schema}.things1",
        "UPDATE {schema}.things1 SET n = n * 10",
        "ALTER TABLE {schema}.things ATTACH PARTITION {schema}.things1 FOR VALUES IN (1)",
    ),
    "a table renamed, updated and renamed back": (
        "ALTER TABLE {schema}.notes RENAME TO aside",
        "UPDATE {schema}.aside SET note = upper(note)",
        "ALTER TABLE {schema}.aside RENAME TO notes",
    ),
    "updated while updates were not published": (
        "ALTER PUBLICATION pub SET (publish = 'insert')",
        "UPDATE {schema}.notes SET note = upper(note)",
        "ALTER PUBLICATION pub SET (publish = 'insert, update, delete, truncate')",
    ),
}
HARMLESS = (
    "ALTER TABLE {schema}.things ADD more text DEFAULT 'x'",
    "ALTER TABLE {schema}.things ALTER n SET NOT NULL",
    "ALTER TABLE {schema}.notes ALTER note SET STATISTICS 100",
    "CREATE TABLE {schema}.things4 PARTITION OF {schema}.things FOR VALUES IN (4)",
    "ALTER TYPE {schema}.mood ADD VALUE 'happy'",
    "CREATE INDEX ON {schema}.things (n)",
    "VACUUM FULL {schema}.notes",
)


@pytest.fixture
def system(system: System) -> System:
    system.execute(*SCHEMA)
    system.declare("things", THINGS)
    system.run("backfill", model_name(system))
    assert differing(system) == {}
    return system


def model_name(system: System) -> str:
    return f"{system.prefix}-things"


def differing(system: System) -> dict[str, object]:
    """Returns the documents that differ from PostgreSQL, by ID."""
    have = system.documents(model_name(system))
    want = dict(system.database.query(EXPECTED.format(schema=system.schema)))
    return {id: have.get(id) for id in have | want if have.get(id) != want.get(id)}


def start_in_sync(system: System) -> Daemon:
    """Starts a daemon and waits until it has committed the events of the first rows."""
    daemon = system.start(model_name(system))
    until(lambda: daemon.metric("syncer_events_total") == FIRST, daemon.log.read_text)
    until(lambda: daemon.metric("syncer_lag_records") == 0, daemon.log.read_text)
    return daemon


def has_events(system: System, case: str) -> bool:
    """PostgreSQL 14 sends an update of a leaf that was detached in the same transaction as an update of the root."""
    with system.database.connect() as session:
        return session.info.server_version < 150000 and case == "a leaf detached, updated and attached"


def rendered_again(system: System, daemon: Daemon) -> None:
    until(lambda: daemon.logged("re-rendering all documents"), daemon.log.read_text)
    until(lambda: not differing(system), lambda: f"{differing(system)}\n{daemon.log.read_text()}")


@pytest.mark.parametrize("case", SILENT)
def test_hazard_06_an_alteration_is_detected_while_the_daemon_runs(system: System, case: str) -> None:
    """The fingerprint changes, although no event arrives."""
    daemon = start_in_sync(system)
    until(lambda: system.status_of(model_name(system))["lag_records"] == 0)  # reopened lanes repeat no events
    system.execute(";".join(SILENT[case]))  # in one transaction, like a migration
    rendered_again(system, daemon)
    if not has_events(system, case):
        assert daemon.metric("syncer_events_total") == FIRST, "an event reported the alteration"
    assert not daemon.logged("read model failed"), daemon.log.read_text()


@pytest.mark.parametrize("case", SILENT)
def test_hazard_06_an_alteration_is_detected_when_the_daemon_starts(system: System, case: str) -> None:
    """The state of the tables is recorded before the first document is rendered."""
    daemon = start_in_sync(system)
    until(lambda: system.status_of(model_name(system))["lag_records"] == 0)  # committed, so no event is repeated
    daemon.stop()
    system.execute(";".join(SILENT[case]))
    assert differing(system), "nothing is wrong"
    daemon = system.start(model_name(system))
    rendered_again(system, daemon)
    if not has_events(system, case):
        assert daemon.metric("syncer_events_total") == 0, "an event reported the alteration"


def test_hazard_06_a_daemon_killed_before_it_records_an_alteration_detects_it_again(system: System) -> None:
    """An open transaction delays the daemon between the detection and the record."""
    daemon = start_in_sync(system)
    with system.database.connect(autocommit=False) as other:
        other.execute("SELECT pg_current_xact_id()")
        widened = ";".join(SILENT["columns widened"])
        system.execute(f"{widened}; {'; '.join(SILENT['updated while updates were not published'])}")
        until(lambda: daemon.logged("waiting for open transactions"), daemon.log.read_text)
        daemon.kill()
        other.rollback()
    [found] = daemon.logged("re-rendering all documents")
    for change in ("things.id was integer and is now bigint", "note was text and is now character varying(99)"):
        assert change in found["why"]
    assert differing(system), "nothing is wrong"
    daemon = system.start(model_name(system))
    rendered_again(system, daemon)
    system.execute(  # values that the old column types could not hold
        "INSERT INTO {schema}.notes VALUES (3000000000, 'big')",
        "INSERT INTO {schema}.things VALUES (3000000000, 1, 4000000000)",
    )
    until(lambda: not differing(system), lambda: f"{differing(system)}\n{daemon.log.read_text()}")
    assert not any(one.logged("read model failed") for one in system.daemons)
    system.until_status(model_name(system), reason="")


FITS = "tables were altered, the read model still fits them"


def members(system: System) -> dict[str, tuple[str, set[str]]]:
    """Returns the state and member IDs of each consumer group. A member that rejoins gets a new ID."""
    admin = AdminClient({"bootstrap.servers": system.stack.kafka})
    unit = f"{system.prefix}.{model_name(system)}.1"
    asked = admin.describe_consumer_groups([unit, f"{unit}.work", f"{unit}.backfill"])
    groups = {name: future.result() for name, future in asked.items()}
    return {n: (g.state.name, {member.member_id for member in g.members}) for n, g in groups.items()}


@pytest.mark.parametrize("case", ["a leaf truncated", "a leaf detached", "tables swapped by rename"])
def test_hazard_06_lanes_continue_if_the_read_model_fits_the_altered_tables(system: System, case: str) -> None:
    """Lanes stay in their groups. Each alteration causes a render of all documents."""
    system.environment["SYNCER_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS"] = "60000"  # tolerates a slow machine
    daemon = start_in_sync(system)
    before = members(system)
    assert all(state == "STABLE" and ids for state, ids in before.values()), before
    for times, statements in enumerate((SILENT[case], SILENT["a child's column altered, using"]), 1):
        system.execute(";".join(statements))
        until(lambda times=times: len(daemon.logged("re-rendering all documents")) == times)  # type: ignore[misc]
        until(lambda: not differing(system), lambda: f"{differing(system)}\n{daemon.log.read_text()}")
    system.execute("UPDATE {schema}.notes SET note = 'last' WHERE id = 3")
    until(lambda: daemon.metric("syncer_events_total") > FIRST, daemon.log.read_text)
    until(lambda: not differing(system), lambda: f"{differing(system)}\n{daemon.log.read_text()}")
    assert members(system) == before
    assert daemon.logged(FITS), daemon.log.read_text()
    assert not daemon.logged("lane is waiting") and not daemon.logged("read model waiting"), daemon.log.read_text()


def test_hazard_06_harmless_alterations_cause_no_render(system: System) -> None:
    daemon = system.start(model_name(system))
    daemon.until_ready()
    for statement in HARMLESS:
        before = len(daemon.logged(FITS))
        system.execute(statement)
        if not statement.startswith(("CREATE INDEX", "VACUUM")):  # other statements change the fingerprint
            until(lambda before=before: len(daemon.logged(FITS)) > before, daemon.log.read_text)  # type: ignore[misc]
    daemon.stop()
    daemon = system.start(model_name(system))
    assert daemon.metric("syncer_batches_total", lane="work") == 0
    assert not any(d.logged("re-rendering all documents") for d in system.daemons)
