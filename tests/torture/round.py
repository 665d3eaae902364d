"""Runs one round: writes and faults, then a pause without faults, then the comparison of every document."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devstack import Stack
from syncer.checks.running import APPLY
from tests.convergence.compare import Expected, compare, describe
from tests.convergence.deployment import Deployment, deployed
from tests.convergence.documents import Difference
from tests.convergence.oracle import Oracle
from tests.convergence.workload import Workload
from tests.harness.database import fresh_database
from tests.harness.names import fresh_names
from tests.torture import big_group
from tests.torture.autopsy import autopsy
from tests.torture.faults import FaultInjector
from tests.torture.own_writes import FalseFresh, OwnWrites, declare
from tests.torture.samples import SampleWriter
from tests.torture.servers import proxied
from tests.torture.slot import lose_slot

CONVERGENCE_TIMEOUT = 60.0
"""Seconds from the end of the last fault and the last write until every document must be correct."""
WRITERS, RATE, RATE_WITH_GROUPS = 4, 200.0, 50.0
"""Transactions per second of all writers. With groups, their read models need the rest of a machine with two cores."""
_SLOT_LOST = 1 / 3
"""The share of rounds that end with a lost slot. It needs a resync of every read model."""
_SECONDS_PER_COPY = 40.0
"""At the end of a round, Kafka Connect is killed during a COPY once per this number of seconds. No later change
could then correct the documents by chance."""
_ANSWERS = 5
"""Waits that have to be answered with 200 after the faults have ended."""
_OPERATOR_DELAY = 15.0
"""Seconds until the round runs the command that the syncer reports for a failed connector. Debezium stops if
PostgreSQL crashes while the connector starts."""


class DocumentsDiffer(AssertionError):
    """Documents differ from PostgreSQL, and the syncer did not report it."""


@dataclass(frozen=True)
class Report:
    """Describes a completed round.

    rows: inserted, updated and deleted rows.
    settled: seconds from the end of the faults until all documents were correct.
    waits: status of `/wait` → how often it was answered.
    samples: watermarks that were compared with documents.
    group_rows: rows of the largest group at the end. group_writes: transactions that changed the groups.
    """

    seed: str
    seconds: float
    transactions: int
    rows: int
    faults: dict[str, int]
    documents: int
    settled: float
    waits: dict[int, int]
    samples: int
    group_rows: int
    group_writes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {sum(self.faults.values())} faults of {len(self.faults)} kinds,"
            f" {self.transactions:,} transactions, {self.rows:,} rows; {self.documents:,} documents equal"
            f" to PostgreSQL after {self.settled:.1f} s; answers of /wait: {self.waits}; {self.samples} watermarks;"
            f" {self.group_writes:,} transactions on groups, the largest with {self.group_rows:,} rows"
        )


def run_round(
    stack: Stack,
    seed: str,
    seconds: float,
    folder: Path,
    *,
    timeout: float = CONVERGENCE_TIMEOUT,
    group_rows: int = 0,
) -> Report:
    """Runs one round and returns its report.

    seconds: duration of the faults and writes.
    folder: for settings and logs.
    timeout: seconds, see `CONVERGENCE_TIMEOUT`.
    group_rows: the rows of the groups of `big_group.py` at the beginning. 0: without these groups.

    Raises DocumentsDiffer if a document is wrong at the end. Raises AssertionError if a process ended unexpectedly.
    """
    began = time.monotonic()
    with (
        fresh_database(stack) as database,
        fresh_names(stack) as names,
        deployed(stack, database, names, folder) as deployment,
        proxied(deployment) as servers,
    ):
        workload = Workload(database, seed, WRITERS, RATE_WITH_GROUPS if group_rows else RATE)
        injector = FaultInjector(deployment, servers, seed)
        own = OwnWrites(deployment, seed, lambda: injector.daemons, servers.losses)
        samples = SampleWriter(database, seed, group_rows) if group_rows else None
        try:
            workload.seed_rows(60)
            declare(deployment)
            sinks = big_group.declare(deployment, group_rows, seed) if group_rows else {}
            deployment.run("connectors", "apply", "--yes")
            with _checked(own, deployment, injector, timeout), samples.running() if samples else nullcontext():
                _write_under_faults(workload, samples, injector, seconds, 2 * timeout)
            ended = time.monotonic()
            expected = Oracle(database).documents()
            groups, largest = big_group.expected(database, sinks) if group_rows else ({}, 0)
            expected |= groups
            settle(deployment, injector, expected, timeout)
            settled = time.monotonic() - ended
            deployment.run("verify", "--patience", "5")
            if injector.random.random() < _SLOT_LOST:
                injector.log("slot dropped")
                with _checked(own.again(), deployment, injector, timeout):
                    lose_slot(deployment, workload)
                injector.done["slot dropped"] += 1
                settle(deployment, injector, Oracle(database).documents() | groups, timeout)
            for daemon in injector.daemons:
                daemon.stop()
        finally:
            try:
                injector.wait_for_faults()
            finally:
                servers.start_missing()  # the clean-up needs them
                workload.close()
    faults = {name: n for name, n in injector.done.items() if not name.endswith(("started", "done"))}
    return Report(
        seed,
        round(time.monotonic() - began, 1),
        workload.transactions,
        workload.rows,
        faults,
        sum(map(len, expected.values())),
        round(settled, 1),
        dict(own.answers),
        own.samples,
        largest,
        samples.transactions if samples else 0,
    )


def _write_under_faults(
    workload: Workload, samples: SampleWriter | None, injector: FaultInjector, seconds: float, timeout: float
) -> None:
    """Runs writers and faults, first with a backfill, then without one.

    A backfill renders every document, so it would hide lost changes. For the same reason, few operations make every
    document dirty.

    timeout: seconds for the backfill after the first faults have ended.
    """
    began = time.monotonic()
    workload.calm()
    try:
        workload.start()
        injector.begin()
        injector.run_until(began + seconds * 0.4, backfills=True)
        injector.finish_backfill(time.monotonic() + timeout)
        injector.log("truncate projects")
        workload.do("truncate projects")
        if samples:
            samples.truncate()
        injector.run_until(time.monotonic() + seconds * 0.3, backfills=False)
        injector.log("truncate entries, edit all people")
        workload.do("truncate entries")
        workload.do("edit all people")
        injector.run_until(time.monotonic() + seconds * 0.3, backfills=False)
        for _ in range(int(seconds // _SECONDS_PER_COPY)):
            injector.kill_connect_during_copy()
        injector.stop()
    finally:
        workload.stop()


@contextmanager
def _checked(own: OwnWrites, deployment: Deployment, injector: FaultInjector, timeout: float) -> Iterator[None]:
    """Checks freshness during the block, and until some waits were answered with 200 afterwards.

    timeout: seconds for these answers.
    """
    own.start()
    try:
        yield
        operator = _Operator(deployment, injector)

        def repairs() -> bool:
            operator.check()
            return any(s["refresh"] for s in deployment.status(expect=(0, 1)))

        own.require_answers(_ANSWERS, timeout, repairs)
    finally:
        try:
            own.stop()
        except FalseFresh:
            autopsy(deployment, [], deployment.folder)
            raise


class _Operator:
    """Does what `syncer status` says if the connector has failed: Debezium may stop by itself after a restart."""

    def __init__(self, deployment: Deployment, injector: FaultInjector) -> None:
        self._deployment, self._injector = deployment, injector
        self._began, self._checked = time.monotonic(), False

    def check(self) -> None:
        """Checks the connector once, after a delay. Asserts that the syncer names the command, and runs it."""
        if self._checked or time.monotonic() - self._began < _OPERATOR_DELAY:
            return
        self._checked = True
        if "failed" in self._deployment.run("connectors", "status", expect=(0, 1)):
            assert APPLY in self._deployment.run("status", expect=(0, 1)), "syncer status does not name the command"
            self._injector.log("connector applied")
            self._deployment.run("connectors", "apply", "--yes")


def settle(deployment: Deployment, injector: FaultInjector, expected: Expected, timeout: float) -> None:
    """Waits until every document is as expected and no work remains. Raises DocumentsDiffer.

    timeout: seconds until the documents must be correct. It starts again while remaining work decreases, if the
    documents are correct or are all being rendered again: that happens after each resume of an old Debezium.
    """
    began = progress = time.monotonic()
    found: list[Difference] = []
    left, operator = 0, _Operator(deployment, injector)
    while time.monotonic() - progress < timeout:
        found = compare(deployment, expected)
        status = deployment.status(expect=(0, 1))
        work = sum(s["lag_records"] + s["work_records"] + (s["state"] == "failed") for s in status)
        if not found and not work:
            return
        if work < left and (not found or any(s["refresh"] for s in status)):
            progress = time.monotonic()
        left = work
        operator.check()
        time.sleep(0.5)  # a comparison is expensive: it reads every document
    autopsy(deployment, found, deployment.folder)
    logs = "\n".join(daemon.tail() for daemon in injector.daemons)
    logs += deployment.run("status", expect=(0, 1)) + deployment.run("connectors", "status", expect=(0, 1))
    wrong = describe(found) if found else f"documents are equal, but {left} records of work remain"
    raise DocumentsDiffer(f"not in sync after {time.monotonic() - began:.0f} s: {wrong}\n{logs}")
