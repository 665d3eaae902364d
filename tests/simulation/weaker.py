"""Rules that look sufficient and are not. The schedules must detect each of them, or they prove nothing.

A weaker rule replaces methods of the syncer during a test, or changes the world. The syncer itself has no switch for
it. Each rule names the fault that it causes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import orjson

from syncer.clock import Clock, Identity, Snapshot, version
from syncer.errors import Fatal, Retry
from syncer.events import ChangeEvent, Key, WorkItem
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.pacing import Waiter
from syncer.pipeline.change_stages import ChangeStages
from syncer.pipeline.lane import Lane
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.visibility import VersionedView
from syncer.pipeline.write_batch import WriteBatch
from syncer.pipeline.writer import Writer, Written
from syncer.ports import Record, Rows, View
from tests.simulation.operator import Operator
from tests.simulation.process import Process
from tests.simulation.rows import SimulatedRows, SimulatedView
from tests.simulation.sink import Store


@dataclass(frozen=True, slots=True)
class Weaker:
    """wrong: the fault. patches: (class, method) → its replacement. lane, remembers, refuses: see `World`.

    first: the seed with which the search begins. For a rare fault it is a little before the first seed that showed it.
    If a change of the code moves that schedule, the search takes longer.
    """

    wrong: str
    patches: Mapping[tuple[type, str], Callable[..., Any]] = field(default_factory=dict)
    lane: type[Lane] = Lane
    remembers: float = 3600.0
    refuses: bool = False
    first: int = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for (owner, name), function in self.patches.items():
                stack.enter_context(patch.object(owner, name, function))
            yield


# -- versions -----------------------------------------------------------------------------------------


class ByPosition(Lane):
    """Uses a WAL position as the version of documents."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        by_clock = self.gate.open_view

        @contextmanager
        def by_position(xids: Collection[int] = ()) -> Iterator[VersionedView]:
            with by_clock(xids) as seen:  # above the versions of earlier documents
                yield seen._replace(version=version(1, (1 << 47) + self._at(seen)))

        self.gate.open_view = by_position  # type: ignore[method-assign]
        self.gate.require = lambda version: None  # type: ignore[method-assign]  # a WAL position is no snapshot clock

    def _at(self, seen: VersionedView) -> int:
        """Returns the WAL position at the time of the snapshot."""
        return seen.view.head.insert_lsn


class EventLsn(ByPosition):
    """Uses the LSN of the newest event that made the documents dirty."""

    lsn = 0

    def _at(self, seen: VersionedView) -> int:
        return self.lsn or super()._at(seen)

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        self.lsn = max([orjson.loads(r.value)["source"]["lsn"] for r in records if r.value], default=0)
        yield from super()._changes(changes, records)


_XMAX: Any = property(lambda snapshot: snapshot.xmax)


# -- the gate -----------------------------------------------------------------------------------------


def _sees_everything(self: Snapshot, xids: Collection[int]) -> list[int]:
    return []


class GateOnRenderOnly(Lane):
    """Makes look-ups in any snapshot, and commits the events whose look-ups find no root."""

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        routed = self.changes.route(changes)
        with self.gate.rows.view() as view:
            keys = self.changes._look_up(view, routed.dirty)
        if not keys:
            yield WriteBatch.empty(self.time.monotonic(), records)
            return
        with self.gate.open_view(routed.xids) as seen:
            batch, left = self.render.in_view(seen, keys, records)
        yield batch
        yield from self.render.keys(left, records)


# -- resolving ----------------------------------------------------------------------------------------

_resolve = Resolve.__call__


def _only_after(self: Resolve, change: ChangeEvent, places: Any, dirty: Dirty) -> None:
    _resolve(self, change._replace(before=change.after) if change.op == "u" else change, places, dirty)


def _never_lacks_old_row(self: Resolve, change: ChangeEvent) -> bool:
    return False


_hand_over_all = ChangeStages._hand_over_all


def _only_once(self: ChangeStages, dirty: Dirty, snapshot: Snapshot, oldest_ms: int) -> None:
    """Hands over all roots for the first update that lacks its old row, and for no later one."""
    if self._handed_over is not None:
        dirty.lacking_old_row.clear()
    _hand_over_all(self, dirty, snapshot, oldest_ms)


def _whenever_rendered(self: RenderCache, keys: Collection[Key], xids: Collection[int], now: Snapshot) -> list[Key]:
    return [key for key in keys if key not in self._snapshots]


# -- crashes ------------------------------------------------------------------------------------------


def _always_flushed(self: SimulatedRows, lsn: int) -> bool:
    """Writes documents of transactions that a crash may take back."""
    return True


def _plan_at_once(
    self: Operator, rows: Rows, plan: Callable[[View], Iterable[WorkItem]], wait: Waiter
) -> list[WorkItem]:
    """Makes ranges from a snapshot that a crash may take back."""
    with rows.view() as view:
        return list(plan(view))


_version = Clock.version


def _remembers_at_once(self: Clock, identity: Identity, clock: int, *, floor: int, model: str) -> int:
    self.durable(clock)
    return _version(self, identity, clock, floor=floor, model=model)


def _any_history(self: Clock, identity: Identity, clock: int, *, floor: int, model: str) -> int:
    return version(self.epoch, clock)


# -- writing ------------------------------------------------------------------------------------------


class SendsAgain(Lane):
    """Sends a failed batch again without rendering it, as clients do that retry by themselves."""

    def _finish_write(self) -> None:
        written = self.writer.finish()
        if written is None:
            return
        retry = self._handle(written)
        back_off = self.wait.back_off(0.05, 5.0)
        while retry:
            back_off()
            retry = self._handle(self.writer.write(replace(written.batch, snapshot_at=self.time.monotonic())))
        self._acknowledge(written.batch)


def _ignores_losses(self: SinkDurabilityMonitor, *what: Any) -> None:
    """Ignores that a sink lost data."""


def _repairs_nothing(self: Process) -> None:
    """Stores that the connector resumed, and repairs nothing."""


def _without_waiting(self: Process) -> None:
    """Does not wait for transactions that are in WAL and not visible yet."""


def _stores_first(self: Process) -> None:
    """Stores the new reader first, and hands over the work then."""
    stored, reader = self.world.stored, self.world.connector.reader
    if reader != stored.reader:
        stored.reader = reader
        self.world.scheduler.pause()
        with suppress(Retry):
            self.repair()


_writer = Writer.__init__


def _any_age(self: Writer, *arguments: Any, **named: Any) -> None:
    _writer(self, *arguments, **{**named, "limits": replace(named["limits"], max_age=1e9)})


def _has_nothing(self: Store, id: str) -> int:
    return -1


class AcknowledgesAnyway(Lane):
    """Acknowledges the batch that opens the circuit breaker, without its dead letters."""

    def _handle(self, written: Written) -> list[str]:
        try:
            return super()._handle(written)
        except Fatal:
            self._acknowledge(written.batch)
            raise


class CommitFirst(Lane):
    """Commits the polled records before it writes their documents."""

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        ends = {(topic, number): offset + 1 for (topic, number, offset), _, _ in records}
        self.source.commit(ends, wait=True)
        yield from super()._changes(changes, records)


WEAKER: dict[str, Weaker] = {
    "event LSN as version": Weaker(
        "a transaction that logged first and committed last loses against a transaction that it sees",
        lane=EventLsn,
    ),
    "WAL position as version": Weaker(
        "two snapshots with the same position see different rows, and the first one stays",
        lane=ByPosition,
    ),
    "xmax as version": Weaker(
        "a transaction that began early and ends late does not raise the version",
        {(Snapshot, "clock"): _XMAX},
    ),
    "no gate": Weaker(
        "an event is processed before its transaction is visible",
        {(Snapshot, "unseen"): _sees_everything},
    ),
    "a gate on the render only": Weaker(
        "a look-up finds no root yet, and the event is committed",
        lane=GateOnRenderOnly,
    ),
    "no before-images": Weaker(
        "the order that an item leaves still shows the item",
        {(Resolve, "__call__"): _only_after},
    ),
    "missing old rows": Weaker(
        "the order that an item leaves under a weak replica identity still shows the item",
        {(Resolve, "lacks_old_row"): _never_lacks_old_row},
    ),
    "missing old rows, handled once": Weaker(
        "roots that were handed over before an update count as rendered after it",
        {(ChangeStages, "_hand_over_all"): _only_once},
        first=16_000,
    ),
    "a render cache without transactions": Weaker(
        "a root that was rendered before the change counts as rendered after it",
        {(RenderCache, "stale"): _whenever_rendered},
    ),
    "no wait for the flush": Weaker(
        "a crash takes back transactions whose rows were written, and assigns their ids again",
        {(SimulatedRows, "flushed"): _always_flushed},
    ),
    "a snapshot before the locks": Weaker(
        "a table that is rewritten meanwhile looks empty, and there is no event",
        {(SimulatedView, "_begin"): SimulatedView._take_snapshot},
    ),
    "a backfill without a flush": Weaker(
        "a crash takes back a delete, and no range contains the row",
        {(Operator, "plan_durably"): _plan_at_once},
    ),
    "the clock stored before the flush": Weaker(
        "after a crash the clock seems to have run backwards",
        {(Clock, "version"): _remembers_at_once},
    ),
    "any history": Weaker(
        "rows of a restored server are written",
        {(Clock, "version"): _any_history},
    ),
    "a failed batch is sent again": Weaker(
        "it arrives after the sink has forgotten a later delete",
        lane=SendsAgain,
    ),
    "any age": Weaker(
        "a document rendered long ago is written after the sink has forgotten its delete",
        {(Writer, "__init__"): _any_age},
    ),
    "deletes forgotten at once": Weaker(
        "a write that is on its way restores a deleted document",
        remembers=0.01,
    ),
    "a sink without versions": Weaker(
        "a late write of an older snapshot replaces a newer document",
        {(Store, "version"): _has_nothing},
    ),
    "a sink that loses data is not repaired": Weaker(
        "a write that is on its way restores a deleted document, or lost writes stay lost",
        {(SinkDurabilityMonitor, "_schedule_repair"): _ignores_losses},
    ),
    "a resume is not repaired": Weaker(
        "rows that the connector lost stay lost",
        {(Process, "repair"): _repairs_nothing},
    ),
    "a resume is repaired at once": Weaker(
        "a render does not see a transaction whose rows the connector lost",
        {(Process, "wait_for_open"): _without_waiting},
    ),
    "a resume is stored, then repaired": Weaker(
        "a process that dies in between, or whose work items are not acknowledged, repairs nothing",
        {(Process, "_compare_reader"): _stores_first},
    ),
    "commit before write": Weaker(
        "the batch under way is lost when a process dies",
        lane=CommitFirst,
    ),
    "the batch that opens the breaker is acknowledged": Weaker(
        "refused documents have neither a dead letter nor a record that is polled again",
        lane=AcknowledgesAnyway,
        refuses=True,
    ),
}
