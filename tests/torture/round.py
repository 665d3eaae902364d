"""One round: writers and faults for a while; then all is left to settle, and every document is compared."""

from __future__ import annotations

import time
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
from tests.torture.autopsy import autopsy
from tests.torture.faults import Fire
from tests.torture.servers import between
from tests.torture.slot import lose_slot

SETTLES_WITHIN = 60.0
"""Seconds from when all servers are back and the last write is done, until every document is right."""
WRITERS, RATE = 4, 200.0
_SLOT_LOST = 1 / 3
"""Of so many rounds, in the end: it takes a resync of every read model."""
_A_COPY = 40.0
"""Seconds of a round for which Connect is killed once more amid a COPY, in the end: nothing comes after that
would make the documents right by chance."""


_OPERATOR_COMES = 15.0
"""Seconds. Debezium gives up if PostgreSQL crashes while the connector starts. The syncer reports it with the
command, which is run then."""


class NotRight(AssertionError):
    """Documents differ from what PostgreSQL says, and nobody told of it."""


@dataclass(frozen=True)
class Report:
    """What was done in a round, and how it ended. rows: inserted, updated, deleted."""

    seed: str
    seconds: float
    transactions: int
    rows: int
    faults: dict[str, int]
    documents: int
    settled: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {sum(self.faults.values())} faults of {len(self.faults)} kinds,"
            f" {self.transactions:,} transactions, {self.rows:,} rows; {self.documents:,} documents equal"
            f" {self.settled:.1f} s after the end"
        )


def play(stack: Stack, seed: str, seconds: float, folder: Path, *, within: float = SETTLES_WITHIN) -> Report:
    """folder: for settings and logs. within: seconds, see `SETTLES_WITHIN`.

    Raises NotRight when a document is wrong in the end; AssertionError when a process ended by itself.
    """
    began = time.monotonic()
    with (
        fresh_database(stack) as database,
        fresh_names(stack) as names,
        deployed(stack, database, names, folder) as deployment,
        between(deployment) as servers,
    ):
        workload = Workload(database, seed, WRITERS, RATE)
        fire = Fire(deployment, servers, seed)
        try:
            workload.seed_rows(60)
            deployment.run("connectors", "apply", "--yes")
            _burn(workload, fire, seconds, 2 * within)
            ended = time.monotonic()
            expected = Oracle(database).documents()
            settle(deployment, fire, expected, within)
            settled = time.monotonic() - ended
            deployment.run("verify", "--patience", "5")
            if fire.random.random() < _SLOT_LOST:
                fire.log("slot dropped")
                lose_slot(deployment, workload)
                fire.done["slot dropped"] += 1
                settle(deployment, fire, Oracle(database).documents(), within)
            for daemon in fire.daemons:
                daemon.terminate()
        finally:
            try:
                fire.quench()
            finally:
                servers.whole()  # those who clean up need them
                workload.close()
    faults = {name: n for name, n in fire.done.items() if not name.endswith(("started", "done"))}
    return Report(
        seed,
        round(time.monotonic() - began, 1),
        workload.transactions,
        workload.rows,
        faults,
        sum(map(len, expected.values())),
        round(settled, 1),
    )


def _burn(workload: Workload, fire: Fire, seconds: float, patience: float) -> None:
    """A backfill under fire first; then without one, as it would hide what a change should have done. Of what
    makes every document dirty, little: it would hide the same.

    patience: seconds for the backfill, once nothing disturbs it."""
    began = time.monotonic()
    workload.calm()
    try:
        workload.start()
        fire.begin()
        fire.go_on(began + seconds * 0.4, backfills=True)
        fire.finish_backfill(time.monotonic() + patience)
        fire.log("truncate projects")
        workload.do("truncate projects")
        fire.go_on(time.monotonic() + seconds * 0.3, backfills=False)
        fire.log("truncate entries, edit all people")
        workload.do("truncate entries")
        workload.do("edit all people")
        fire.go_on(time.monotonic() + seconds * 0.3, backfills=False)
        for _ in range(int(seconds // _A_COPY)):
            fire.kill_connect_amid_copy()
        fire.stop()
    finally:
        workload.stop()


def settle(deployment: Deployment, fire: Fire, expected: Expected, within: float) -> None:
    """Waits until every document is as expected and no work is left. Raises NotRight.

    within: seconds for the documents to become right. Work that is left then may take longer, as long as it shrinks:
    each resume of an old Debezium has all documents rendered again.
    """
    began = progress = time.monotonic()
    found: list[Difference] = []
    left, applied = 0, False
    while time.monotonic() - progress < within:
        found = compare(deployment, expected)
        status = deployment.status(expect=(0, 1))
        work = sum(s["lag_records"] + s["work_records"] + (s["state"] == "failed") for s in status)
        if not found and not work:
            return
        if not found and work < left:
            progress = time.monotonic()
        left = work
        if not applied and time.monotonic() - began > _OPERATOR_COMES:
            applied = True
            if "failed" in deployment.run("connectors", "status", expect=(0, 1)):
                assert APPLY in deployment.run("status", expect=(0, 1)), "no output names the command to run"
                fire.log("connector applied")
                deployment.run("connectors", "apply", "--yes")
        time.sleep(0.5)  # a comparison reads every document
    autopsy(deployment, found, deployment.folder)
    said = "\n".join(daemon.tail() for daemon in fire.daemons)
    said += deployment.run("status", expect=(0, 1)) + deployment.run("connectors", "status", expect=(0, 1))
    wrong = describe(found) if found else f"documents are equal, but {left} records of work are left"
    raise NotRight(f"not within {time.monotonic() - began:.0f} s: {wrong}\n{said}")
