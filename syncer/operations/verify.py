"""Compares every document of every sink with the current rows in PostgreSQL.

Both sides change during the comparison. So a difference is first a suspicion. It is compared again until it disappears
or `patience` is over. Only then is it reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from syncer import document
from syncer.declaration.compile import Compiled
from syncer.document import Row
from syncer.errors import Reject
from syncer.events import Key
from syncer.operations.comparison import FAILS, difference
from syncer.pacing import BackOff
from syncer.ports import IndexedSink, InspectableSink, Overflow, Rows, View
from syncer.registry.records import BackfillRun, Registration
from syncer.registry.state import StateSnapshot

_CHUNK = 1000
_MAX_EQUAL_IDS = 5_000_000
"""Limits the memory for ids that were found equal, a few dozen bytes each. Further ids are compared a second time."""


@dataclass(slots=True)
class Report:
    """Holds the differences of one sink. The lists hold document ids."""

    sink: str
    documents: int = 0
    """Number of documents that should be in the sink."""
    missing: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)
    """Documents in the sink whose row does not exist in PostgreSQL, or is excluded by `where`."""
    failing: list[str] = field(default_factory=list)
    """Rows that cannot be rendered, so their documents cannot be compared."""
    expired: int = 0
    """Number of documents that the sink removed because of its `expire` setting. They are not a difference."""
    readers: str = ""
    """The problem, if readers use another index or generation than this sink; otherwise empty."""
    repaired: int = 0
    """Number of documents that differed and are correct after they were rendered again."""

    @property
    def wrong(self) -> list[str]:
        """Ids of all documents that are not correct."""
        return [*self.missing, *self.differing, *self.orphaned, *self.failing]

    @property
    def equal(self) -> bool:
        """Whether the sink is correct and readers use it."""
        return not self.wrong and not self.readers


class Verify:
    """Compares the documents of one read model. Call it with each sink.

    patience: seconds in which a difference may disappear before it is reported.
    rendered: seconds since the start of the last backfill that wrote all documents; 0 if there was none.
    progress: called with the number of roots compared so far.
    """

    def __init__(
        self,
        compiled: Compiled,
        rows: Rows,
        *,
        patience: float = 30.0,
        rendered: float = 0.0,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.compiled, self.rows, self.patience, self.progress = compiled, rows, patience, progress
        self.rendered = rendered
        self._failing: set[str] = set()

    def __call__(self, sink: InspectableSink) -> Report:
        """Compares all roots with the sink, then all ids of the sink that are no known root with PostgreSQL."""
        report = Report(sink.name)
        if isinstance(sink, IndexedSink):
            sink.find_strays()
        suspects: set[str] = set()
        equal: set[int] = set()  # hashes of ids that need no second comparison
        for ids, bodies in self._roots():
            wrong = self._without_expired(report, self._compare(sink, ids, bodies))
            suspects |= wrong.keys()
            if len(equal) < _MAX_EQUAL_IDS:
                equal.update(hash(id) for id in ids if bodies[id] is not None and id not in wrong)
            report.documents += sum(body is not None for body in bodies.values())
            self.progress(report.documents)
        for ids in _chunks((id for id in sink.ids() if hash(id) not in equal), _CHUNK):
            with self.rows.view() as view:
                bodies = self._bodies(view, ids)
            suspects |= {id for id in ids if bodies.get(id) is None}
        return self._judge(sink, report, suspects)

    def again(self, sink: InspectableSink, before: Report) -> Report:
        """Compares only the documents that were wrong before, after they were rendered again."""
        report = self._judge(sink, Report(sink.name, before.documents), before.wrong)
        report.repaired = len(before.wrong) - len(report.wrong)
        return report

    def _judge(self, sink: InspectableSink, report: Report, suspects: Iterable[str]) -> Report:
        """Adds those suspects to the report that still differ when `patience` is over."""
        deadline, back_off = time.monotonic() + self.patience, BackOff(0.1, 2.0)
        found = self._without_expired(report, self._recheck(sink, sorted(suspects)))
        while found and time.monotonic() < deadline:
            time.sleep(back_off.pause())
            found = self._without_expired(report, self._recheck(sink, sorted(found)))
        for id, kind in sorted(found.items()):
            getattr(report, kind).append(id)
        return report

    def _without_expired(self, report: Report, found: dict[str, str]) -> dict[str, str]:
        """Counts expired documents and returns the others."""
        wrong = {id: kind for id, kind in found.items() if kind != "expired"}
        report.expired += len(found) - len(wrong)
        return wrong

    def _roots(self) -> Iterator[tuple[list[str], dict[str, bytes | None]]]:
        """Yields ids and bodies of all roots, one key range at a time. Each range has its own snapshot."""
        with self.rows.view(root_only=True) as view:
            highs = list(view.boundaries(_CHUNK))
        low = None
        for high in highs:
            with self.rows.view() as view:
                try:
                    rows = view.render_range(low, high)
                except (Reject, Overflow):
                    rows = self._render(view, view.keys_in_range(low, high), exist=True)
            bodies = {row.id: row.body for row in rows if row.id is not None}
            yield list(bodies), bodies
            low = high

    def _bodies(self, view: View, ids: Sequence[str]) -> dict[str, bytes | None]:
        """Renders the documents of these ids. Ids that are not valid keys are missing in the result."""
        keys = []
        for id in ids:
            with suppress(ValueError):
                keys.append(document.parse_id(id, len(self.compiled.key)))
        return {row.id: row.body for row in self._render(view, keys) if row.id is not None}

    def _render(self, view: View, keys: list[Key], *, exist: bool = False) -> list[Row]:
        """Renders the keys. If that fails, splits them in halves until the failing rows are isolated.

        exist: the keys were read from rows. Otherwise, a key that fails may have no row.
        """
        try:
            return view.render(keys) if keys else []
        except (Reject, Overflow):
            if len(keys) == 1:
                id = document.document_id(keys[0])
                if exist:
                    self._failing.add(id)
                return [Row(id, id, FAILS)] if id in self._failing else []
            middle = len(keys) // 2
            halves = keys[:middle], keys[middle:]
            return [row for half in halves for row in self._render(view, half, exist=exist)]

    def _recheck(self, sink: InspectableSink, ids: Sequence[str]) -> dict[str, str]:
        """Compares these documents again, with rows and documents of now."""
        found: dict[str, str] = {}
        for chunk in _chunks(ids, _CHUNK):
            with self.rows.view() as view:
                bodies = self._bodies(view, chunk)
            found |= self._compare(sink, chunk, bodies)
        return found

    def _compare(self, sink: InspectableSink, ids: Sequence[str], bodies: dict[str, bytes | None]) -> dict[str, str]:
        """Returns id → `missing`, `expired`, `differing`, `orphaned` or `failing`, for the ids that are not equal."""
        stored = sink.read(ids)
        found: dict[str, str] = {}
        for id in ids:
            if kind := difference(sink, bodies.get(id), stored.get(id)):
                found[id] = kind
        absent = [id for id, kind in found.items() if kind == "missing"]
        if absent:
            found |= dict.fromkeys(sink.expired(absent, self.rendered), "expired")
        return found


def seconds_since_backfill(values: StateSnapshot, known: Registration, now_ms: int) -> float:
    """Returns the seconds since the start of the last backfill that wrote all documents; 0 if there was none."""
    run = values.get(BackfillRun.key(known.id))
    return (now_ms - run.started_ms) / 1000 if run and run.finished_ms and run.started_ms else 0.0


def _chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(ids)
    while chunk := list(islice(remaining, size)):
        yield chunk
