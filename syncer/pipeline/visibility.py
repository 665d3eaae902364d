"""Stage 5, gate: opens a snapshot that sees every transaction of the batch, and gives it a version.

A change event can arrive before new snapshots see its transaction. With synchronous replication, this can last long.
Without it, it lasts an instant. A look-up or render in an earlier snapshot would find the old rows, and the change
would be lost. So all queries for a batch, including the look-ups, run in a snapshot that sees all of its transactions.
This also holds for a batch whose look-ups find no root.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, TypeVar

from syncer.clock import Clock, split_version
from syncer.errors import Fatal
from syncer.pacing import Waiter
from syncer.pipeline.limits import Limits
from syncer.ports import Observer, Rows, View
from syncer.quantities import counted

T = TypeVar("T")


class VersionedView(NamedTuple):
    """An open view, and the version of the documents that it renders."""

    view: View
    version: int
    snapshot_at: float
    """Monotonic seconds, taken just before the snapshot. The documents' age counts from here."""


class VisibilityGate:
    """Opens the views of one lane. After `gate_timeout` seconds of waiting, it reports the reason."""

    def __init__(
        self, model: str, rows: Rows, clock: Clock, *, limits: Limits, wait: Waiter, observer: Observer
    ) -> None:
        self.model, self.rows, self.clock = model, rows, clock
        self.limits, self.wait, self.observer = limits, wait, observer
        self._required = 0

    def require(self, version: int) -> None:
        """Requires that all later snapshots have at least this version.

        A sink returned this version: it holds a document of it. The snapshot of that document was taken earlier
        than any snapshot from now on.
        """
        self._required = max(self._required, version)

    @contextmanager
    def open_view(self, xids: Collection[int] = ()) -> Iterator[VersionedView]:
        """Opens a view that sees all these transactions (32 or 64 bits). Waits for them without a limit.

        When the block ends, WAL is flushed up to the snapshot's insert LSN, so the documents may be written.

        Raises Fatal if the server has another history (`clock.py`) or never had one of the transactions.
        """
        since, waited, reports = self.wait.time.monotonic(), False, 0
        back_off = self.wait.back_off(0.001, 0.1)
        lsn: int | None = None
        while lsn is None:
            floor, snapshot_at = self.clock.highest, self.wait.time.monotonic()
            with ExitStack() as opened:
                with self.observer.stage("snapshot"):
                    view = opened.enter_context(self.rows.view(wait=self.wait))
                head = view.head
                clock = head.snapshot.clock
                version = self.clock.version(head.identity, clock, floor=floor, model=self.model)
                if self._required > version:
                    raise self._sink_is_ahead(version)
                unseen = head.snapshot.unseen(xids)
                if not unseen:
                    if reports:
                        self.observer.waiting("")
                    if waited:
                        self.observer.gate(snapshot_at - since)
                    yield VersionedView(view, version, snapshot_at)
                    lsn = head.insert_lsn
                    continue
            waited = True
            if snapshot_at - since > self.limits.gate_timeout * (reports + 1):
                self.observer.waiting(self._why(unseen))
                reports += 1
            back_off()
        if not self.rows.flushed(lsn):
            with self.observer.stage("durable"):
                _wait_until_flushed(self.rows, lsn, self.wait)
        self.clock.durable(clock)

    def _sink_is_ahead(self, version: int) -> Fatal:
        sinks, server = split_version(self._required)[1], split_version(version)[1]
        return Fatal(
            "the snapshot clock of a sink's documents is ahead of this PostgreSQL server",
            where=self.model,
            why=f"the sink has clock {sinks}, the server has clock {server}",
            hint=f"if documents were edited by hand: syncer verify {self.model} --repair; if the database or"
            f" Kafka was recreated: syncer resync {self.model}",
        )

    def _why(self, unseen: list[int]) -> str:
        """Returns why these transactions are not visible. Raises Fatal if the server does not have them."""
        statuses = self.rows.statuses(unseen)
        strange = [f"{xid} is {s}" for xid, s in statuses.items() if s in ("in the future", "aborted")]
        if strange:
            raise Fatal(
                "there are change events of transactions that this PostgreSQL server does not have",
                where=self.model,
                why=", ".join(strange),
                hint=f"if it was restored or failed over: syncer resync {self.model}",
            )
        transactions = counted(len(unseen), "transaction is", "transactions are")
        return (
            f"{transactions} not visible yet, e.g. {unseen[0]} ({statuses.get(unseen[0])}):"
            " most often a synchronous standby that does not answer"
        )


def plan_durably(rows: Rows, plan: Callable[[View], Iterable[T]], wait: Waiter) -> list[T]:
    """Returns a plan over the root table, once WAL is flushed up to the snapshot that the plan was made in.

    The view is closed before the caller works on the plan, because it holds locks.

    plan: yields the parts of the plan. It may read the root table only.
    Raises Retry after a crash. The caller then plans again.
    """
    planned = []
    with durable_view(rows, wait, root_only=True) as view:
        for part in plan(view):
            planned.append(part)
            wait.tick()
    return planned


@contextmanager
def durable_view(rows: Rows, wait: Waiter, *, root_only: bool = False) -> Iterator[View]:
    """Opens a view. When the block ends, WAL is flushed up to its snapshot.

    A crash before the flush could bring back rows that the view did not show, although their events came long ago.

    root_only: see `Rows.view`. Raises Retry after such a crash. The caller then starts over.
    """
    with rows.view(root_only=root_only, wait=wait) as view:
        yield view
        lsn = view.head.insert_lsn
    if not rows.flushed(lsn):
        _wait_until_flushed(rows, lsn, wait)


def _wait_until_flushed(rows: Rows, lsn: int, wait: Waiter) -> None:
    """Waits until WAL is flushed up to `lsn`.

    A crash can take back asynchronous commits that a snapshot saw. New transactions then raise the clock again,
    so the loss cannot be detected later. For this reason no document of the snapshot is written before the flush.
    """
    back_off = wait.back_off(0.001, 0.01)
    back_off()  # on a busy server, the next commit flushes WAL
    if not rows.flushed(lsn):
        rows.flush()
    while not rows.flushed(lsn):
        back_off()
