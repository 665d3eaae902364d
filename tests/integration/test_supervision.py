"""Supervision of a running read model: no check delays another, and one process does each task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from syncer.registry.records import Stream
from syncer.registry.state import State
from syncer.runtime import supervisor as module
from tests.harness.daemon import Daemon
from tests.harness.system import System
from tests.harness.waiting import until
from tests.integration.test_outages import behind_proxy
from tests.integration.test_stalled import CUSTOMERS, FIVE, running, stalled

WAITS = "waiting for open transactions"
AGAIN = "re-rendering all documents"
AFTER = 3.0
ENDS_THE_WAIT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE query LIKE '%pg_snapshot_xip%' AND pid <> pg_backend_pid()"""


@contextmanager
def publication_recreated(system: System) -> Iterator[None]:
    """Recreates the publication, so that changes may be lost, while a transaction is open."""
    with system.database.connect(autocommit=False) as slow:
        slow.execute(f"UPDATE {system.schema}.orders SET status = 'open' WHERE id = 1".encode())
        system.execute(
            "DROP PUBLICATION pub;CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)"
        )
        yield


def test_a_wait_for_open_transactions_delays_no_other_check(system: System) -> None:
    """Once, the wait delayed the stop of a read model with lost changes for up to an hour.

    Its connection had no timeouts, and its errors were reported as unexpected.
    """
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill", system.orders)
    daemon = system.start(system.orders)
    with publication_recreated(system):
        until(lambda: daemon.logged(WAITS), daemon.log.read_text)
        until(lambda: system.database.query(ENDS_THE_WAIT))
        until(lambda: len(daemon.logged(AGAIN)) == 2, daemon.log.read_text)
        until(lambda: daemon.status(system.orders)["state"] == "running", daemon.log.read_text)
        assert not daemon.logged("unexpected error") and not daemon.logged("read model failed"), daemon.log.read_text()
        state, key = State(system.state_store()), Stream.key(system.topic_prefix)
        stream = state.load().get(key) or Stream()
        state.save(key, replace(stream, number=stream.number + 1, why="a test says so"))
        status = daemon.until_state(system.orders, "failed", 30)
        assert "a test says so" in status["reason"]


def test_one_of_two_daemons_schedules_the_render_and_the_other_takes_over(system: System) -> None:
    system.environment["SYNCER_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS"] = "20000"  # tolerates a slow machine
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill", system.orders)
    daemons = [system.start(system.orders) for _ in range(2)]
    group = f"{system.prefix}.{system.orders}.1"
    until(lambda: system.kafka_admin().members(group) == 2)
    with publication_recreated(system):
        message = "tables were altered, the read model still fits them"
        until(lambda: all(daemon.logged(message) for daemon in daemons))

        def waiting_daemons() -> list[Daemon]:
            """Returns the daemons that log the wait, during the next eight lines in total."""
            before = [len(daemon.logged(WAITS)) for daemon in daemons]
            until(lambda: sum(len(daemon.logged(WAITS)) for daemon in daemons) > sum(before) + 8)
            return [d for d, count in zip(daemons, before, strict=True) if len(d.logged(WAITS)) > count]

        # on a slow machine, Kafka may choose the other daemon in the meantime
        [leader] = until(lambda: found if len(found := waiting_daemons()) == 1 else None)
        leader.kill()
        [survivor] = [daemon for daemon in daemons if daemon.alive]
        until(lambda: survivor.logged(WAITS), survivor.log.read_text)
    system.until_in_sync(system.orders)
    until(lambda: refreshes(survivor) == 1, survivor.log.read_text)


def refreshes(daemon: Daemon) -> float:
    return daemon.metric("syncer_full_refreshes_total", reason="altered")


def test_a_check_that_never_ends_fails_the_liveness_check(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check must be detected without any work in the lanes. Its connection is closed in the end."""
    monkeypatch.setattr(module, "STALLED_AFTER", AFTER)
    system.environment["SYNCER_POSTGRES__STATEMENT_TIMEOUT"] = "1s"
    system.environment["SYNCER_POSTGRES__DSN"] += "?application_name=checks"
    with behind_proxy(system, "postgres") as link:
        with running(system, system.orders) as unit:
            system.execute(CUSTOMERS, FIVE)
            system.until_in_sync(system.orders)
            group, topics = f"{system.prefix}.{system.orders}.1", [system.topic(t) for t in ("customers", "orders")]
            until(lambda: sum(system.committed(group, *topics).values()) == 2 + 5)  # a lane at work would hang first
            assert stalled(unit) == ""
            link.stall()
            message = until(lambda: stalled(unit))
            assert message.startswith(f"{system.orders}: the check of tables has made no progress for")
            assert unit.state == "running"
        link.resume()
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'checks'"
        until(lambda: system.database.query(query) == [(0,)])


def test_an_idle_read_model_detects_that_the_clock_ran_backwards(system: System) -> None:
    with running(system, system.orders) as unit:
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(system.orders)
        assert unit._checks
        unit._checks.session.clock.highest += 1_000_000  # only this process has seen the higher clock
        until(lambda: unit.state == "failed")
        assert "ran backwards" in unit.error
        assert "detected" in system.state_store().load()[f"{system.orders}/1/backwards"]["why"]
    with running(system, system.orders) as unit:
        until(lambda: unit.state == "failed")
        assert "ran backwards" in unit.error and "detected" in unit.error
