"""Stops a read model whose sink refuses document after document, before each of them gets a dead letter.

One bad document gets a dead letter, and the other documents go on. But if the mapping fits no document, the
dead-letter topic would fill with the whole table. So the answers of each sink pass a circuit breaker.

======  =======  ==========================================================================================
from    to       when
======  =======  ==========================================================================================
closed  open     the sink refuses `limit` different documents in a row with the same type of error
open    closed   the sink accepts a document
======  =======  ==========================================================================================

While the breaker is open, every refusal stops the read model. So the lane writes no dead letter and commits no
offset past the document. Each retry sends one document alone first ("half-open"). It picks another document each
time, because one may be bad by itself. All processes share their open breakers. So a process that writes a document
also closes the breakers of the others, and so does a replay of dead letters.

Rules for the count:

- Refusals of a sink count. Rows that PostgreSQL cannot render do not.
- A document that is rendered and refused again counts once, and so does one that is combined from many partials.
- The documents of one write count in the order in which they were sent.
- If a sink accepts at least half of a write, the count starts again at zero. So a minority of bad documents never opens
  the breaker, even if they follow one another.
- Deletes do not count.

The idea is arroyo's (`DlqLimit`, https://getsentry.github.io/arroyo/dlqs.html). The breaker does no I/O: the caller
passes the stored breakers, and a function that stores them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal
from syncer.quantities import counted

LIMIT = 100
SETTING = "dead_letters.max_consecutive"

SavedBreakers = Mapping[str, Mapping[str, Any]]
"""The open breakers as they are stored in JSON: name of the sink → `limit` and `trips`."""


@dataclass(slots=True)
class _Row:
    """The documents that one sink refused in a row with the same type of error."""

    kind: str = ""
    ids: set[str] = field(default_factory=set)

    def add(self, refusal: Rejection) -> int:
        """Adds a document. Returns the length of the row."""
        if refusal.kind != self.kind:
            self.kind = refusal.kind
            self.ids.clear()
        self.ids.add(refusal.document or refusal.id)
        return len(self.ids)


class CircuitBreaker:
    """The breakers of one read model in this process, one for each sink. Its lanes share them.

    limit: the number of documents in a row that opens a breaker; 0: no breaker ever opens.
    noted: the open breakers that a process has stored.
    note: stores the open breakers. Called whenever one opens or closes. Must not raise.
    """

    def __init__(
        self,
        model: str,
        limit: int = LIMIT,
        *,
        noted: SavedBreakers | None = None,
        note: Callable[[SavedBreakers], None] = lambda value: None,
    ) -> None:
        self._model, self._limit, self._note = model, limit, note
        self._rows: dict[str, _Row] = {}
        self._trips: dict[str, int] = {}
        """By sink: how often its breaker opened since the sink last accepted a document."""
        self._tolerant = limit == 0
        self._lock = threading.Lock()
        self.learn(noted or {})

    @property
    def open(self) -> list[str]:
        """The sinks whose breakers are open."""
        return list(self._trips)

    def learn(self, noted: SavedBreakers) -> None:
        """Takes over the open breakers that another process has stored. It may have opened or closed one.

        A breaker that was opened under a lower limit is ignored, because the operator raised the limit to get
        dead letters.
        """
        with self._lock:
            known = {sink: value for sink, value in noted.items() if self._limit <= value["limit"]}
            self._trips = {
                sink: max(value["trips"], self._trips.get(sink, 0)) for sink, value in known.items() if self._limit
            }

    def tolerate(self) -> None:
        """From now on, refusals open no breaker. An accepted document still closes one."""
        self._tolerant = True

    def probe(self, batch: Batch) -> str | None:
        """Returns the id of the document to send alone before the rest of the batch. None if no breaker is open."""
        trips = max(list(self._trips.values()), default=0)
        if not trips or self._tolerant or len(batch) == 1 or not batch.upserts:
            return None
        return next(islice(batch.upserts, trips % len(batch.upserts), None))

    def judge(self, sink: str, batch: Batch, outcome: Outcome) -> None:
        """Counts a sink's answer to a batch. The caller does this before it acts on the answer.

        Raises Fatal if the breaker opens, or if it is open and the sink refused a document.
        """
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
        return Fatal(
            f"{sink} refused {counted(length, 'document')} in a row" if first else f"{sink} still refuses documents",
            where=self._model,
            why=f"document {last.id}: {last.reason}",
            hint=f"correct the mapping or the declaration, then: syncer resync {self._model}; or correct the "
            f"rows; or raise {SETTING} (now {self._limit:,}), and each of them gets a dead letter",
        )

    def _note_all(self) -> None:
        self._note({sink: {"limit": self._limit, "trips": trips} for sink, trips in self._trips.items()})
