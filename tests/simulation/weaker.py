"""Rules that look sufficient and are not. Each has to be found out by the schedules, or those prove nothing.

A weaker rule replaces methods of the engine while the tests run, or changes the world; the product has no
switch for it. Next to each stands what goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import orjson

from syncer import document
from syncer.clock import Clock, Identity, Snapshot, version
from syncer.errors import Fatal, Retry
from syncer.events import ChangeEvent, Key, WorkItem
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.pacing import Waiter
from syncer.pipeline.lane import Lane
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.visibility import VersionedView
from syncer.pipeline.writer import WriteBatch, Writer
from syncer.ports import Record, Rows, View
from tests.simulation.operator import Operator
from tests.simulation.process import Process
from tests.simulation.rows import SimulatedRows, SimulatedView
from tests.simulation.sink import Store


@dataclass(frozen=True, slots=True)
class Weaker:
    """patches: (class, method) → what replaces it. remembers: see `sink.Store`. refuses: see `World`."""

    wrong: str
    patches: Mapping[tuple[type, str], Callable[..., Any]] = field(default_factory=dict)
    lane: type[Lane] = Lane
    remembers: float = 3600.0
    refuses: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for (owner, name), function in self.patches.items():
                stack.enter_context(patch.object(owner, name, function))
            yield


# -- versions -----------------------------------------------------------------------------------------


class ByPosition(Lane):
    """Documents get a position in the log as their version."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        by_clock = self.gate.open_view

        @contextmanager
        def by_position(xids: Collection[int] = ()) -> Iterator[VersionedView]:
            with by_clock(xids) as seen:  # above what is there from before
                yield seen._replace(version=version(1, (1 << 47) + self._at(seen)))

        self.gate.open_view = by_position  # type: ignore[method-assign]

    def _at(self, seen: VersionedView) -> int:
        """The log's position at the time of the snapshot."""
        return seen.view.head.insert_lsn

    def _newer(self, version: int) -> None:
        """Says nothing about the snapshot clock."""


class EventLsn(ByPosition):
    """That of the newest event that made them dirty."""

    lsn = 0

    def _at(self, seen: VersionedView) -> int:
        return self.lsn or super()._at(seen)

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> None:
        self.lsn = max([orjson.loads(r.value)["source"]["lsn"] for r in records if r.value], default=0)
        super()._changes(changes, records)


_XMAX: Any = property(lambda snapshot: snapshot.xmax)


# -- the gate -----------------------------------------------------------------------------------------


def _sees_everything(self: Snapshot, xids: Collection[int]) -> list[int]:
    return []


class GateOnRenderOnly(Lane):
    """Look-ups are made in whatever snapshot there is, and what they do not find is settled."""

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> None:
        dirty, xids = Dirty(), set[int]()
        for change in changes:
            if places := self.route(change):
                self.resolve(change, places, dirty)
                xids.add(change.txid or 0)
        with self.gate.rows.view() as view:
            keys = self._look_up(view, dirty)
        if not keys:
            self.writer.send(WriteBatch(document.NOTHING, self.time.monotonic(), records))
            return
        with self.gate.open_view(xids) as seen:
            batch, left = self.render(seen, keys)
        self._send(seen, batch, left, records)
        self._keys(left, records)


# -- resolving ----------------------------------------------------------------------------------------

_resolve = Resolve.__call__


def _only_after(self: Resolve, change: ChangeEvent, places: Any, dirty: Dirty) -> None:
    _resolve(self, change._replace(before=change.after) if change.op == "u" else change, places, dirty)


def _tells_all(self: Resolve, change: ChangeEvent) -> bool:
    return False


class HandsOutOnce(Lane):
    """All roots are handed out for the first update that does not tell its old row, and for no other."""

    def _all(self, dirty: Dirty, seen: Snapshot, oldest_ms: int) -> None:
        if self._handed_out is not None:
            dirty.untold.clear()
        super()._all(dirty, seen, oldest_ms)


def _whenever_rendered(self: RenderCache, keys: Collection[Key], xids: Collection[int], now: Snapshot) -> list[Key]:
    return [key for key in keys if key not in self._snapshots]


# -- crashes ------------------------------------------------------------------------------------------


def _on_disk(self: SimulatedRows, lsn: int) -> bool:
    """What a crash may take back is written."""
    return True


def _passing(self: Operator, rows: Rows, plan: Callable[[View], Iterable[WorkItem]], wait: Waiter) -> list[WorkItem]:
    """The ranges are made of what a crash may take back."""
    with rows.view() as view:
        return list(plan(view))


_version = Clock.version


def _remembers_at_once(self: Clock, identity: Identity, clock: int, *, floor: int, model: str) -> int:
    self.durable(clock)
    return _version(self, identity, clock, floor=floor, model=model)


def _any_history(self: Clock, identity: Identity, clock: int, *, floor: int, model: str) -> int:
    return version(self.epoch, clock)


# -- writing ------------------------------------------------------------------------------------------


def _send_again(self: Writer) -> None:
    """What failed is sent once more as it was, as clients do that retry by themselves."""
    if self._under_way is None:
        return
    piece, future = self._under_way
    left = self._take(piece, self._wait.result(future))
    back_off = self._wait.back_off(0.05, 5.0)
    while left:
        back_off()
        fresh = replace(piece, snapshot_at=self._wait.time.monotonic())
        left = self._take(piece, self._wait.result(self._begin(fresh)))
    self._under_way = None
    self._done(piece)


def _leaves_it(self: SinkDurabilityMonitor, *what: Any) -> None:
    """Nothing is done about what a sink forgot."""


def _repairs_nothing(self: Process) -> None:
    """That the connector resumed is noted, and nothing is done about it."""


def _at_once(self: Process) -> None:
    """What is in the log and not visible yet is not waited for."""


def _notes_first(self: Process) -> None:
    """The new reader is noted, then all is handed out."""
    noted, reader = self.world.noted, self.world.connector.reader
    if reader != noted.reader:
        noted.reader = reader
        self.world.scheduler.pause()
        with suppress(Retry):
            self.repair()


_writer = Writer.__init__


def _any_age(self: Writer, *arguments: Any, **named: Any) -> None:
    _writer(self, *arguments, **{**named, "max_age": 1e9})


def _has_nothing(self: Store, id: str) -> int:
    return -1


_judge_and_take = Writer._take


def _done_anyway(self: Writer, piece: WriteBatch, answers: Any) -> list[str]:
    """The piece that opens the breaker is settled, without its letters."""
    try:
        return _judge_and_take(self, piece, answers)
    except Fatal:
        self._done(piece)
        raise


class CommitFirst(Lane):
    """What was polled is committed, then written."""

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> None:
        ends = {(topic, number): offset + 1 for (topic, number, offset), _, _ in records}
        self.source.commit(ends, wait=True)
        super()._changes(changes, records)


WEAKER: dict[str, Weaker] = {
    "event LSN as version": Weaker(
        "a transaction that logged first and committed last loses against one that it includes",
        lane=EventLsn,
    ),
    "WAL position as version": Weaker(
        "two snapshots with the same position show different rows: the first one stays",
        lane=ByPosition,
    ),
    "xmax as version": Weaker(
        "a transaction that began early and ends late does not raise it",
        {(Snapshot, "clock"): _XMAX},
    ),
    "no gate": Weaker(
        "an event is handled before its transaction can be seen",
        {(Snapshot, "unseen"): _sees_everything},
    ),
    "a gate on the render only": Weaker(
        "a look-up finds no root yet, and the event is settled",
        lane=GateOnRenderOnly,
    ),
    "no before-images": Weaker(
        "the order that an item leaves keeps it",
        {(Resolve, "__call__"): _only_after},
    ),
    "untold old rows": Weaker(
        "the order that an item leaves under a weak replica identity keeps it",
        {(Resolve, "untold"): _tells_all},
    ),
    "untold old rows, once for all": Weaker(
        "what was handed out before the update counts as rendered after it",
        lane=HandsOutOnce,
    ),
    "recent without transactions": Weaker(
        "a root that was rendered before the change counts as rendered",
        {(RenderCache, "stale"): _whenever_rendered},
    ),
    "no flush wait": Weaker(
        "a crash takes back what was written, and its transaction ids are given out again",
        {(SimulatedRows, "flushed"): _on_disk},
    ),
    "a snapshot before the locks": Weaker(
        "a table that is rewritten meanwhile looks empty, and no event tells of it",
        {(SimulatedView, "_begin"): SimulatedView._look},
    ),
    "a backfill of what is not on disk": Weaker(
        "a crash takes back a delete, and the row lies in none of the ranges",
        {(Operator, "plan_durably"): _passing},
    ),
    "the clock remembered at once": Weaker(
        "after a crash the clock seems to have run backwards",
        {(Clock, "version"): _remembers_at_once},
    ),
    "any history": Weaker(
        "a restored server's rows are written",
        {(Clock, "version"): _any_history},
    ),
    "a failed batch is sent again": Weaker(
        "it arrives when the delete that came after it is forgotten",
        {(Writer, "settle"): _send_again},
    ),
    "any age": Weaker(
        "a document rendered long ago is written after its delete is forgotten",
        {(Writer, "__init__"): _any_age},
    ),
    "deletes forgotten at once": Weaker(
        "a write that is on its way brings the document back",
        remembers=0.01,
    ),
    "a sink keeps whatever comes last": Weaker(
        "a late write of an older snapshot replaces a newer document",
        {(Store, "version"): _has_nothing},
    ),
    "a sink that forgets is left alone": Weaker(
        "a write that is on its way brings the document back, or lost writes stay lost",
        {(SinkDurabilityMonitor, "_schedule_repair"): _leaves_it},
    ),
    "a resume is not repaired": Weaker(
        "rows that the connector lost stay lost",
        {(Process, "repair"): _repairs_nothing},
    ),
    "a resume is repaired at once": Weaker(
        "a transaction whose rows were lost is not visible yet to what is rendered",
        {(Process, "wait_for_open"): _at_once},
    ),
    "a resume is noted, then repaired": Weaker(
        "a process that dies in between, or whose work items are not acknowledged, leaves it unrepaired",
        {(Process, "_compare_reader"): _notes_first},
    ),
    "commit before write": Weaker(
        "what was under way when a process died is lost",
        lane=CommitFirst,
    ),
    "what opens the breaker is settled": Weaker(
        "documents that were refused have neither a letter nor a record that comes again",
        {(Writer, "_take"): _done_anyway},
        refuses=True,
    ),
}
