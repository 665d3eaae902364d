"""Weaker rules about crashes, writes, and sinks that forget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from syncer.clock import Clock, Identity, version
from syncer.errors import Fatal
from syncer.events import ChangeEvent, Key, WorkItem
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.pacing import Waiter
from syncer.pipeline.lane import Lane
from syncer.pipeline.render import Render
from syncer.pipeline.write_batch import WriteBatch
from syncer.pipeline.writer import Writer, Written
from syncer.ports import Record, Rows, View
from tests.simulation.operator import Operator
from tests.simulation.rows import SimulatedRows, SimulatedView
from tests.simulation.sink import Store
from tests.simulation.weaker.rule import Weaker

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
            retry = self._handle(self.writer.write(replace(written.batch, snapshot_at=self.time.monotonic()), retry))
        self._acknowledge(written.batch)


def _ignores_losses(self: SinkDurabilityMonitor, *what: Any) -> None:
    """Ignores that a sink lost data."""


_writer = Writer.__init__


def _any_age(self: Writer, *arguments: Any, **named: Any) -> None:
    _writer(self, *arguments, **{**named, "limits": replace(named["limits"], max_age=1e9)})


def _has_nothing(self: Store, id: str) -> int:
    return -1


_in_view = Render.in_view


def _for_all(self: Render, *arguments: Any, for_all: bool = True, **named: Any) -> tuple[WriteBatch, list[Key]]:
    """Remembers a render for some sinks like one for all."""
    return _in_view(self, *arguments, **named)


class AcknowledgesAnyway(Lane):
    """Acknowledges the batch that opens the circuit breaker, without its dead letters."""

    def _handle(self, written: Written) -> dict[str, list[str]]:
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


RULES = {
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
    "a render for one sink counts for all": Weaker(
        "a later event skips a document that only the sink that was busy before has got",
        {(Render, "in_view"): _for_all},
        sinks=2,
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
