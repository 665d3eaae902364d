"""Stage 5, the gate: a snapshot that sees every transaction of the batch, and the version it gives.

An event can reach us before its transaction is visible to new snapshots (with synchronous replication for
long, without it for an instant). Looked up or rendered too early, it would find the old rows and be lost.
So whatever answers for a batch is asked only in a snapshot that sees all of it; also when no root results.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from syncer.clock import Clock, split_version
from syncer.errors import Fatal
from syncer.pacing import Waiter
from syncer.ports import Observer, Rows, View

T = TypeVar("T")


class VersionedView(NamedTuple):
    """An open view, the version of what it renders, and when (monotonic seconds) it began to be old."""

    view: View
    version: int
    snapshot_at: float


class VisibilityGate:
    """timeout: seconds after which the reason for waiting is looked for and told."""

    def __init__(self, model: str, rows: Rows, clock: Clock, wait: Waiter, observer: Observer, timeout: float) -> None:
        self.model, self.rows, self.clock = model, rows, clock
        self.wait, self.observer, self.timeout = wait, observer, timeout
        self.ahead = 0
        """The highest version that a sink had instead of ours. Its writer's snapshot was taken before that,
        so every snapshot from now on has to be at least as high."""

    @contextmanager
    def open_view(self, xids: Collection[int] = ()) -> Iterator[VersionedView]:
        """A view that sees all these transactions (32 or 64 bits), however long that takes. When the block
        ends, what the view saw is on disk: then it may be written.

        Raises Fatal for another history (`clock.py`) and for transactions that this server never had.
        """
        since, waited, told = self.wait.time.monotonic(), False, 0
        back_off = self.wait.back_off(0.001, 0.1)
        lsn: int | None = None
        while lsn is None:
            floor, snapshot_at = self.clock.highest, self.wait.time.monotonic()
            with self.rows.view(wait=self.wait) as view:
                head = view.head
                clock = head.snapshot.clock
                version = self.clock.version(head.identity, clock, floor=floor, model=self.model)
                if self.ahead > version:
                    raise self._lost(version)
                unseen = head.snapshot.unseen(xids)
                if not unseen:
                    if told:
                        self.observer.waiting("")
                    if waited:
                        self.observer.gate(snapshot_at - since)
                    yield VersionedView(view, version, snapshot_at)
                    lsn = head.insert_lsn
                    continue
            waited = True
            if snapshot_at - since > self.timeout * (told + 1):
                self.observer.waiting(self._why(unseen))
                told += 1
            back_off()
        if not self.rows.flushed(lsn):
            with self.observer.stage("durable"):
                _wait_until_flushed(self.rows, lsn, self.wait)
        self.clock.durable(clock)

    def _lost(self, version: int) -> Fatal:
        theirs, ours = split_version(self.ahead)[1], split_version(version)[1]
        return Fatal(
            "a sink holds documents of a later clock than this PostgreSQL server has",
            where=self.model,
            why=f"clock {theirs}, the server's is {ours}",
            hint=f"if documents were edited by hand: syncer verify {self.model} --repair; if the database or"
            f" Kafka was made anew: syncer resync {self.model}",
        )

    def _why(self, unseen: list[int]) -> str:
        statuses = self.rows.statuses(unseen)
        strange = [f"{xid} is {s}" for xid, s in statuses.items() if s in ("in the future", "aborted")]
        if strange:
            raise Fatal(
                "there are change events of transactions that this PostgreSQL server does not have",
                where=self.model,
                why=", ".join(strange),
                hint=f"if it was restored or failed over: syncer resync {self.model}",
            )
        return (
            f"{len(unseen)} transactions are not visible yet, e.g. {unseen[0]} ({statuses.get(unseen[0])}):"
            " most often a synchronous standby that does not answer"
        )


def plan_durably(rows: Rows, plan: Callable[[View], Iterable[T]], wait: Waiter) -> list[T]:
    """What is planned of the root's table, whole, once the view is closed (a walk over a large index holds a
    lock) and what it saw is on disk, so that the plan may be relied on. Otherwise a crash may bring rows back
    that are in no part of it, and whose events came long ago.

    Raises Retry after such a crash: plan again.
    """
    planned = []
    with rows.view(root_only=True, wait=wait) as view:
        for part in plan(view):
            planned.append(part)
            wait.tick()
        lsn = view.head.insert_lsn
    if not rows.flushed(lsn):
        _wait_until_flushed(rows, lsn, wait)
    return planned


def _wait_until_flushed(rows: Rows, lsn: int, wait: Waiter) -> None:
    """A crash can take back asynchronous commits that a snapshot saw, and the clock soon looks sound again.
    So nothing that was made of it is written before the log is on disk up to where it was then."""
    back_off = wait.back_off(0.001, 0.01)
    back_off()  # on a busy server the next commit does it
    if not rows.flushed(lsn):
        rows.flush()
    while not rows.flushed(lsn):
        back_off()
