"""Stops a read model whose sink refuses document after document, before each of them has a dead letter.

One bad document gets a dead letter and harms no other. A mapping that fits no document is another matter: the
dead-letter topic would fill with the whole table. So the refusals of each sink pass a circuit breaker.

======  =======  ==========================================================================================
from    to       when
======  =======  ==========================================================================================
closed  open     the sink refuses `limit` different documents in a row with the same type of error
open    closed   the sink accepts a document
======  =======  ==========================================================================================

While the breaker is open, every refusal stops the read model, so nothing is dead-lettered and no offset moves
past it. Each retry sends one document alone first ("half-open"), another one each time: the first one may be
bad by itself. All processes share what they note, so one that writes documents frees the others, and so does
a replay of dead letters.

What counts: refusals by a sink, not rows that PostgreSQL cannot render. A document that is rendered and
refused again counts once. Documents of one write are counted in the order in which they were sent. A write of
which the sink accepted at least half ends the row, so that a minority of bad documents never opens the
breaker, even if they are neighbours. Deletes say nothing about the documents.

The idea is arroyo's (`DlqLimit`, https://getsentry.github.io/arroyo/dlqs.html). No I/O: the caller passes
what was noted, and a function that notes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal

LIMIT = 100
SETTING = "dead_letters.max_consecutive"

Noted = Mapping[str, Mapping[str, Any]]
"""Sink's name → `limit` and `trips` of an open breaker, as JSON has it."""


@dataclass(slots=True)
class _Row:
    """Documents that one sink refused one after the other with one type of error."""

    kind: str = ""
    ids: set[str] = field(default_factory=set)

    def add(self, refusal: Rejection) -> int:
        """Returns how many documents are in the row now."""
        if refusal.kind != self.kind:
            self.kind = refusal.kind
            self.ids.clear()
        self.ids.add(refusal.id)
        return len(self.ids)


class Breaker:
    """The breakers of one read model in this process, one for each sink. Its lanes share them.

    limit: documents in a row; 0: the breaker never opens.
    noted: the open breakers that this or another process noted. note: called with the open breakers whenever
    one opens or closes; must not raise.
    """

    def __init__(
        self,
        model: str,
        limit: int = LIMIT,
        *,
        noted: Noted | None = None,
        note: Callable[[Noted], None] = lambda value: None,
    ) -> None:
        self._model, self._limit, self._note = model, limit, note
        self._rows: dict[str, _Row] = {}
        self._trips: dict[str, int] = {}
        """How often the breaker of a sink opened since the sink last accepted a document."""
        self._tolerant = limit == 0
        self._lock = threading.Lock()
        self.learn(noted or {})

    @property
    def open(self) -> list[str]:
        """The sinks whose breakers are open."""
        return list(self._trips)

    def learn(self, noted: Noted) -> None:
        """Takes over what another process noted since: it may have opened a breaker, or closed this one."""
        with self._lock:  # a higher limit than then: the operator wants dead letters
            known = {sink: value for sink, value in noted.items() if self._limit <= value["limit"]}
            self._trips = {
                sink: max(value["trips"], self._trips.get(sink, 0)) for sink, value in known.items() if self._limit
            }

    def tolerate(self) -> None:
        """From now on, refusals do not open it. An accepted document still closes it."""
        self._tolerant = True

    def probe(self, batch: Batch) -> str | None:
        """The document that has to be sent alone before the rest of the batch; None if there is no need."""
        trips = max(list(self._trips.values()), default=0)
        if not trips or self._tolerant or len(batch) == 1 or not batch.upserts:
            return None
        return next(islice(batch.upserts, trips % len(batch.upserts), None))

    def judge(self, sink: str, batch: Batch, outcome: Outcome) -> None:
        """Counts the sink's answer to a batch, before anything is made of it.

        Raises Fatal if the breaker opens, and while it is open if the sink refused a document."""
        with self._lock:
            again = set(outcome.retry)
            refused = {one.id: one for one in outcome.rejected if one.id not in again}
            accepted = len(batch.upserts)
            if refused or again:
                accepted = sum(id not in refused and id not in again for id in batch.upserts)
            if accepted and self._trips.pop(sink, 0):
                self._note_all()
            if self._tolerant or accepted >= max(1, len(refused)):
                self._rows.pop(sink, None)
                return
            row = self._rows.setdefault(sink, _Row())
            for id in batch.ids():
                if (refusal := refused.get(id)) is not None:
                    length = row.add(refusal)
                    if length >= self._limit or sink in self._trips:
                        raise self._trip(sink, refusal, length)
                elif id in batch.upserts and id not in again:
                    row.ids.clear()

    def _trip(self, sink: str, last: Rejection, length: int) -> Fatal:
        first = sink not in self._trips
        self._trips[sink] = self._trips.get(sink, 0) + 1
        self._note_all()
        what = f"{sink} refused {length:,} documents in a row" if first else f"{sink} still refuses documents"
        return Fatal(
            what,
            where=self._model,
            why=f"document {last.id}: {last.reason}",
            hint=f"correct the mapping or the declaration, then: syncer resync {self._model}; or correct the "
            f"rows; or raise {SETTING} (now {self._limit:,}), and each of them gets a dead letter",
        )

    def _note_all(self) -> None:
        self._note({sink: {"limit": self._limit, "trips": trips} for sink, trips in self._trips.items()})
