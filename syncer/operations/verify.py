"""Verify: compare every document of every sink with what PostgreSQL says now.

Both sides move while this looks. So a difference is a suspicion first: it is looked at again until it is
gone or `patience` is over. What then still differs is reported.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any

from syncer import document
from syncer.declaration.compile import Compiled
from syncer.document import Row
from syncer.errors import Reject
from syncer.events import Key
from syncer.ports import InspectableSink, Overflow, Rows, View

_CHUNK = 1000
_REMEMBERED = 5_000_000
_FAILS = b""
"""In the place of a document that cannot be rendered."""


@dataclass(slots=True)
class Report:
    """What was found in one sink. The lists hold ids."""

    sink: str
    documents: int = 0
    """Documents that PostgreSQL says there should be."""
    missing: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    """In the sink, though PostgreSQL has no such row (or `where` excludes it)."""
    failing: list[str] = field(default_factory=list)
    """Rows of which no document can be rendered, so that there is nothing to compare with."""
    expired: int = 0
    """Documents that the sink removed by itself, as its `expire` says: these are in order."""
    readers: str = ""
    """What readers see instead of this; empty when they see it."""
    repaired: int = 0
    """Documents that were wrong and no longer are, since they were rendered again."""

    @property
    def wrong(self) -> list[str]:
        return [*self.missing, *self.differing, *self.ghosts, *self.failing]

    @property
    def equal(self) -> bool:
        return not self.wrong and not self.readers


class Verify:
    """patience: seconds that a difference is given to go away. rendered: seconds since the last backfill that
    wrote all documents began; 0 if none did. progress: called with the number of roots compared so far."""

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
        report = Report(sink.name)
        suspects: set[str] = set()
        equal: set[int] = set()  # hashes of ids that need no second look: a few dozen bytes each
        for ids, bodies in self._roots():
            wrong = self._in_order(report, self._compare(sink, ids, bodies))
            suspects |= wrong.keys()
            if len(equal) < _REMEMBERED:
                equal.update(hash(id) for id in ids if bodies[id] is not None and id not in wrong)
            report.documents += sum(body is not None for body in bodies.values())
            self.progress(report.documents)
        for ids in _chunks((id for id in sink.ids() if hash(id) not in equal), _CHUNK):
            with self.rows.view() as view:
                bodies = self._bodies(view, ids)
            suspects |= {id for id in ids if bodies.get(id) is None}
        return self._judge(sink, report, suspects)

    def again(self, sink: InspectableSink, before: Report) -> Report:
        """Only what was wrong, after it was rendered again."""
        report = self._judge(sink, Report(sink.name, before.documents), before.wrong)
        report.repaired = len(before.wrong) - len(report.wrong)
        return report

    def _judge(self, sink: InspectableSink, report: Report, suspects: Iterable[str]) -> Report:
        """What is wrong with these, when patience is over."""
        deadline, pause = time.monotonic() + self.patience, 0.1
        found = self._in_order(report, self._recheck(sink, sorted(suspects)))
        while found and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 2.0)
            found = self._in_order(report, self._recheck(sink, sorted(found)))
        for id, what in sorted(found.items()):
            getattr(report, what).append(id)
        return report

    def _in_order(self, report: Report, found: dict[str, str]) -> dict[str, str]:
        """Counts what is expired, and returns the rest."""
        wrong = {id: what for id, what in found.items() if what != "expired"}
        report.expired += len(found) - len(wrong)
        return wrong

    def _roots(self) -> Iterator[tuple[list[str], dict[str, bytes | None]]]:
        """Every root, a range at a time, each in a snapshot of its own."""
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
        """What PostgreSQL says of these ids; nothing of those that can be no key."""
        keys = []
        for id in ids:
            with suppress(ValueError):
                keys.append(document.parse_id(id, len(self.compiled.key)))
        return {row.id: row.body for row in self._render(view, keys) if row.id is not None}

    def _render(self, view: View, keys: list[Key], *, exist: bool = False) -> list[Row]:
        """As the view does, by halves if one fails. exist: the keys are of rows; others may be of none."""
        try:
            return view.render(keys) if keys else []
        except (Reject, Overflow):
            if len(keys) == 1:
                id = document.document_id(keys[0])
                if exist:
                    self._failing.add(id)
                return [Row(id, id, _FAILS)] if id in self._failing else []
            middle = len(keys) // 2
            halves = keys[:middle], keys[middle:]
            return [row for half in halves for row in self._render(view, half, exist=exist)]

    def _recheck(self, sink: InspectableSink, ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for some in _chunks(ids, _CHUNK):
            with self.rows.view() as view:
                bodies = self._bodies(view, some)
            found |= self._compare(sink, some, bodies)
        return found

    def _compare(self, sink: InspectableSink, ids: Sequence[str], bodies: dict[str, bytes | None]) -> dict[str, str]:
        """id → `missing`, `expired`, `differing`, `ghosts` or `failing`, for the ids that are not equal."""
        have = sink.read(ids)
        found: dict[str, str] = {}
        for id in ids:
            wanted, is_there = bodies.get(id), have.get(id)
            if wanted == _FAILS:
                found[id] = "failing"
            elif wanted is None:
                if is_there is not None:
                    found[id] = "ghosts"
            elif is_there is None:
                if sink.normalize(wanted) is not None:
                    found[id] = "missing"
            elif not same(sink.normalize(wanted), is_there):
                found[id] = "differing"
        absent = [id for id, what in found.items() if what == "missing"]
        if absent:
            found |= dict.fromkeys(sink.expired(absent, self.rendered), "expired")
        return found


def same(left: bytes | None, right: bytes | None) -> bool:
    """Whether two JSON texts hold the same value; numbers exactly, 1.0 and 1.00 apart from their digits."""
    if left == right:
        return True
    return left is not None and right is not None and _value(left) == _value(right)


def _value(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def _chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(ids)
    while some := list(islice(left, size)):
        yield some
