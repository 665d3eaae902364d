"""The connector starts a new replication session: lost rows, and the render of all documents that repairs them.

SYNCER_SOURCE__REPAIR_AFTER_RESUME and DEVSTACK_DEBEZIUM_VERSION run the first test with the repair and with an older
Debezium. By default the repair is off, so it checks Debezium itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from devstack import Stack
from syncer.checks import loses_only_inserts
from syncer.connect.client import Connect
from tests.harness.copying import SavedPositions, copy, pretend_first_row_was_sent
from tests.harness.daemon import Daemon
from tests.harness.system import Source, System, streaming_source
from tests.harness.waiting import until

AGAIN = "re-rendering all documents"
ROWS = 3000


@pytest.fixture(scope="module")
def source(stack: Stack) -> Iterator[Source]:
    """Yields a connector that sends one record per request, so that a page of rows takes long."""
    with streaming_source(stack, producer__override__batch__size="1") as source:
        yield source


def start_in_sync(system: System, policy: str) -> Daemon:
    """Starts a daemon whose read model is in sync and which has recorded the reader of the slot."""
    system.environment |= {
        "SYNCER_SOURCE__REPAIR_AFTER_RESUME": policy,
        "SYNCER_WATCH__INTERVAL": "200ms",
        "SYNCER_FRESHNESS__INTERVAL": "200ms",
        "SYNCER_PIPELINE__MAX_AGE": "1s",
    }
    system.execute("INSERT INTO {schema}.customers VALUES (-1, 'Ada'), (-2, 'Grace')")
    system.run("backfill", system.summaries)
    daemon = system.start(system.summaries)
    system.until_in_sync(system.summaries)
    return daemon


def resume(system: System, source: Source) -> None:
    """Ends the connector's session with PostgreSQL and waits until a new one starts."""
    find = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s AND active"
    [[before]] = until(lambda: system.database.query(find, [source.names.prefix]))
    system.database.query("SELECT pg_terminate_backend(%s)", [before])
    until(lambda: [row for row in system.database.query(find, [source.names.prefix]) if row[0] != before])


def delete_document(system: System, id: int) -> None:
    """Deletes a document and its version without the syncer, as if the connector had lost the row's events."""
    with redis.Redis.from_url(system.redis) as client:
        keys = list(client.scan_iter(f"*{system.prefix}:summary:{id}*", count=1000))
        assert client.delete(*keys) == 2, "it and its version"


def refreshes(daemon: Daemon) -> float:
    return daemon.metric("syncer_full_refreshes_total", reason="resumed")


@pytest.mark.timeout(600)
def test_hazard_30_rows_of_a_copy_during_which_connect_is_killed(source: Source, system: System) -> None:
    """Debezium 3.6 loses the rest of a page of rows. It reports RUNNING, and canaries arrive."""
    daemon = start_in_sync(system, os.environ.get("SYNCER_SOURCE__REPAIR_AFTER_RESUME", "never"))
    positions = SavedPositions(system.stack, source.connector.name)
    rows = ((id, f"copied {id}") for id in range(1, ROWS + 1))
    xid = copy(system.database, f"COPY {system.schema}.customers FROM STDIN", rows)
    killed = positions.saved_inside(xid, 60, harmless=True)
    system.stack.kill("connect")
    positions.close()
    system.stack.launch("connect")
    assert killed, "the connector was past the COPY before it saved a position"
    system.execute("INSERT INTO {schema}.customers VALUES (0, 'the last')")
    until(lambda: "0" in system.documents(system.summaries), daemon.log.read_text)
    system.until_in_sync(system.summaries)
    assert daemon.metric("syncer_stream_breaks") == 0


def test_hazard_30_all_documents_are_rendered_again_after_the_connector_resumes(source: Source, system: System) -> None:
    """The connector resumes once while a daemon runs, and once while none runs."""
    daemon = start_in_sync(system, "always")
    delete_document(system, -1)
    resume(system, source)
    until(lambda: refreshes(daemon) == 1, daemon.log.read_text)
    [entry] = daemon.logged(AGAIN)
    assert f"the connector resumed (another process reads slot {source.names.prefix})" in entry["why"]
    system.until_in_sync(system.summaries)
    until(lambda: not system.status_of(system.summaries)["refresh"])
    daemon.stop()
    state, key = system.state_store(), f"{system.summaries}/1/refresh"
    done = state.load()[key]
    state.save(key, {**done, "ends": dict.fromkeys(done["ends"], 1000)})
    assert f"work items left: {entry['why']}" in system.run("status", system.summaries, expect=1)
    state.save(key, done)  # otherwise the next schedule waits for these items

    delete_document(system, -2)
    resume(system, source)
    daemons = [system.start(system.summaries) for _ in range(2)]
    until(lambda: sum(map(refreshes, daemons)), daemons[0].log.read_text)
    system.until_in_sync(system.summaries)


@pytest.mark.parametrize(
    ("policy", "running"),
    [("auto", True), ("auto", False), ("never", True)],
    ids=["a daemon runs", "no daemon runs", "nothing is repaired"],
)
def test_hazard_30_documents_of_lost_rows_are_rendered_although_only_recent_rows_are_read(
    source: Source, system: System, policy: str, running: bool
) -> None:
    """Debezium 3.7.0 loses the rest of a page of rows if it had sent the first row of the transaction only."""
    daemon = start_in_sync(system, policy)
    if policy == "auto":
        until(lambda: is_proved(system))
    if not running:
        daemon.stop()
    with closing(Connect(system.stack.connect)) as connect:
        connect.stop(source.connector.name)
        rows = ((id, f"copied {id}") for id in range(1, 301))
        xid = copy(system.database, f"COPY {system.schema}.customers FROM STDIN", rows)
        system.execute("INSERT INTO {schema}.customers VALUES (0, 'the last')")
        pretend_first_row_was_sent(system.stack, source.database, source.connector, xid)
        connect.resume(source.connector.name)
    if not running:
        daemon = system.start(system.summaries)
    until(lambda: "0" in system.documents(system.summaries), daemon.log.read_text)
    if policy == "never":
        assert len(system.documents(system.summaries)) < 300, "rows of the first page are lost"
        return
    until(lambda: daemon.logged("re-rendering documents of recent rows"), daemon.log.read_text)
    system.until_in_sync(system.summaries)
    assert refreshes(daemon) == 0, "not all documents were rendered again"


def is_proved(system: System) -> bool:
    """Whether a daemon has proved something for the reader that is saved for the read model."""
    state = system.state_store().load()
    saved = state[f"{system.summaries}/1/reader"]["reader"]
    return saved in [one["reader"] for one in state[f"~{system.topic_prefix}/canary"]["proved"]]


def test_hazard_30_what_is_rendered_after_a_resume_depends_on_the_debezium_version(
    source: Source, system: System
) -> None:
    """With `auto`, only recent rows are rendered if this version loses inserts only. `check` reports other versions."""
    daemon = start_in_sync(system, "auto")
    until(lambda: is_proved(system))
    known = system.state_store().load()[f"{system.summaries}/1/reader"]
    resume(system, source)
    [connect] = [version for name, version in system.stack.versions().items() if name == "connect"]
    only_inserts = loses_only_inserts(connect.partition("Debezium ")[2])
    assert only_inserts is not None
    until(lambda: system.state_store().load()[f"{system.summaries}/1/reader"]["reader"] != known["reader"])
    assert system.state_store().load()[f"{system.summaries}/1/reader"]["only_inserts"] is only_inserts
    assert refreshes(daemon) == (0 if only_inserts else 1)
    output = system.run("check", system.summaries, expect=0 if only_inserts else 1)
    assert ("loses rows of a COPY" in output) is not only_inserts
