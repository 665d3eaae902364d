"""What looks after a read model while its lanes run: no part holds up the others; one process is enough."""

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
def returned(system: System) -> Iterator[None]:
    """The publication was made anew, so that changes may have got lost; and a transaction of then is open."""
    with system.database.connect(autocommit=False) as slow:
        slow.execute(f"UPDATE {system.schema}.orders SET status = 'open' WHERE id = 1".encode())
        system.execute(
            "DROP PUBLICATION pub;CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)"
        )
        yield


def test_a_wait_for_open_transactions_holds_up_nothing(system: System) -> None:
    """Found: for up to an hour, a proven loss did not stop the read model; and the wait's own connection had
    neither time-outs nor an error that was told as what it is."""
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill", system.orders)
    daemon = system.start(system.orders)
    with returned(system):
        until(lambda: daemon.logged(WAITS), daemon.log.read_text)
        until(lambda: system.database.query(ENDS_THE_WAIT))
        until(lambda: len(daemon.logged(AGAIN)) == 2, daemon.log.read_text)
        until(lambda: daemon.status(system.orders)["state"] == "running", daemon.log.read_text)
        assert not daemon.logged("unexpected error") and not daemon.logged("read model failed"), daemon.log.read_text()
        state, key = State(system.state_store()), Stream.key(system.topic_prefix)
        known = state.load().get(key) or Stream()
        state.save(key, replace(known, number=known.number + 1, why="a test says so"))
        told = daemon.until_state(system.orders, "failed", 30)
        assert "a test says so" in told["reason"]


def test_one_of_two_daemons_has_all_rendered_again_and_the_other_if_it_dies(system: System) -> None:
    system.environment["SYNCER_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS"] = "20000"  # also when it is slow
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill", system.orders)
    daemons = [system.start(system.orders) for _ in range(2)]
    group = f"{system.prefix}.{system.orders}.1"
    until(lambda: system.kafka_admin().members(group) == 2)
    with returned(system):
        noticed = "tables were altered, the read model still fits them"
        until(lambda: all(daemon.logged(noticed) for daemon in daemons))

        def at_it() -> list[Daemon]:
            """Those that tell of it while eight more lines are told in all."""
            before = [len(daemon.logged(WAITS)) for daemon in daemons]
            until(lambda: sum(len(daemon.logged(WAITS)) for daemon in daemons) > sum(before) + 8)
            return [d for d, told in zip(daemons, before, strict=True) if len(d.logged(WAITS)) > told]

        # Kafka may choose the other one meanwhile, if the machine is slow
        [leader] = until(lambda: found if len(found := at_it()) == 1 else None)
        leader.kill()
        [left] = [daemon for daemon in daemons if daemon.alive]
        until(lambda: left.logged(WAITS), left.log.read_text)
    system.until_in_sync(system.orders)
    until(lambda: refreshes(left) == 1, left.log.read_text)


def refreshes(daemon: Daemon) -> float:
    return daemon.metric("syncer_full_refreshes_total", reason="altered")


def test_a_look_that_never_ends_is_told(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when there is no work in which the lanes would notice; and its connection is closed in the end."""
    monkeypatch.setattr(module, "STALLED_AFTER", AFTER)
    system.environment["SYNCER_POSTGRES__STATEMENT_TIMEOUT"] = "1s"
    system.environment["SYNCER_POSTGRES__DSN"] += "?application_name=looks"
    with behind_proxy(system, "postgres") as link:
        with running(system, system.orders) as unit:
            system.execute(CUSTOMERS, FIVE)
            system.until_in_sync(system.orders)
            assert stalled(unit) == ""
            link.stall()
            told = until(lambda: stalled(unit))
            assert told.startswith(f"{system.orders}: the check of tables has made no progress for")
            assert unit.state == "running"
        link.resume()
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'looks'"
        until(lambda: system.database.query(asked) == [(0,)])


def test_who_is_idle_notices_that_the_clock_ran_backwards(system: System) -> None:
    with running(system, system.orders) as unit:
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(system.orders)
        assert unit._checks
        unit._checks.session.clock.highest += 1_000_000  # seen by this process, and by no other
        until(lambda: unit.state == "failed")
        assert "ran backwards" in unit.error
        assert "detected" in system.state_store().load()[f"{system.orders}/1/backwards"]["why"]
    with running(system, system.orders) as unit:
        until(lambda: unit.state == "failed")
        assert "ran backwards" in unit.error and "detected" in unit.error
