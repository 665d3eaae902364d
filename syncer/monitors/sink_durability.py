"""Detects sinks that lost acknowledged writes, and schedules a repair.

A restart, a failover or a flush can make a sink lose deletes or documents. No error reports such a loss. So the syncer
reads a durability token from each sink every few seconds (`DurableSink.durability`). It compares the token with the one
before, which is kept in the state topic.

    deletes lost     An older write in progress can bring a deleted document back. The syncer sends no write after
                     `max_age`. After 4 × `max_age`, a sweep re-renders the documents that were written in between, and
                     deletes those without a row.
    documents lost   Every root is rendered again, as in a backfill. Then a sweep checks all documents in the sink,
                     because deletes are lost, too.

The repair work is durable before the new token is saved. Each process compares with the tokens that it read itself. If
one process could reach the old primary for longer than the others, it may have lost more writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import structlog

from syncer.errors import Retry
from syncer.events import WorkItem
from syncer.ports import DurabilityToken, DurableSink, RememberingSink, WorkTopic

_SAVE_EVERY_MS = 60_000

log = structlog.get_logger()

SavedTokens = Mapping[str, Iterable[str]]
"""Name of a sink → its `DurabilityToken`, as read from JSON."""


class SinkDurabilityMonitor:
    """Monitors the sinks of one generation of one read model.

    seen: the last token of each sink that this process read; outlives this object.
    saved: the tokens in the state topic.
    save: saves tokens in the state topic.
    work: takes the sweeps.
    refill: schedules a render of every root; the work is durable when it returns.
    lost: called with the sink's name and the kind of loss, `deletes` or `documents`.
    max_age: seconds after which no write is sent any more.
    """

    def __init__(
        self,
        model: str,
        sinks: Iterable[DurableSink],
        *,
        seen: dict[str, DurabilityToken],
        saved: SavedTokens,
        save: Callable[[SavedTokens], None],
        work: WorkTopic,
        refill: Callable[[], None],
        lost: Callable[[str, str], None],
        max_age: float,
    ) -> None:
        self.model, self.sinks, self.max_age = model, list(sinks), max_age
        self._seen, self._save, self._work, self._refill, self._lost = seen, save, work, refill, lost
        self._written: dict[str, str] = {}
        """The high watermark that each sink reported at the last check."""
        self._saved_ms = 0
        for name, token in saved.items():
            self._seen.setdefault(name, DurabilityToken(*token))
        for sink in self.sinks:
            if sink.name in self._seen and isinstance(sink, RememberingSink):
                sink.remember(self._seen[sink.name])

    @property
    def tokens(self) -> dict[str, DurabilityToken]:
        """Returns the last token of each sink. The repair of all losses before it is durable. For any thread."""
        return dict(self._seen)

    def check(self, now_ms: int) -> None:
        """Reads the token of each sink, and schedules a repair where it changed.

        Raises Fatal, and Retry if a sink cannot report its token now. The other sinks are checked first.
        """
        unreachable: Retry | None = None
        for sink in self.sinks:
            try:
                self._compare(sink.name, sink.durability(), now_ms)
            except Retry as error:
                unreachable = error
        if unreachable is not None:
            raise unreachable

    def _compare(self, sink: str, found: DurabilityToken, now_ms: int) -> None:
        before = self._seen.get(sink)
        changed = before is None or before[:2] != found[:2]
        if before is not None and changed:
            self._schedule_repair(sink, before, found, now_ms)
        # The high watermark is taken from the check before this one. A shard that moves accepts writes in its new
        # place a moment before the cluster reports the move.
        written = self._written.get(sink, before.written if before else found.written)
        seen = {**self._seen, sink: found._replace(written=written)}
        if changed or now_ms - self._saved_ms > _SAVE_EVERY_MS:
            self._save({name: tuple(token) for name, token in seen.items()})
            self._saved_ms = now_ms
        self._seen[sink], self._written[sink] = seen[sink], found.written

    def _schedule_repair(self, sink: str, before: DurabilityToken, found: DurabilityToken, now_ms: int) -> None:
        loss = "documents" if found.documents != before.documents else "deletes"
        # A document is sent within `max_age`. The sink may hold it for as long again, while it waits for a shard.
        # The sum is doubled, because a process may pause between reading the clock and sending.
        later = now_ms + int(4000 * self.max_age)
        since = before.written
        if loss == "documents":
            self._refill()
            since = ""
        self._work.put(WorkItem("sweep", f"lost {loss}", not_before_ms=later, sink=sink, since=since))
        self._work.flush()
        self._lost(sink, loss)
        log.warning(_MESSAGES[loss], model=self.model, sink=sink, sweep_after_seconds=round(4 * self.max_age))


_MESSAGES = {
    "documents": "sink may have lost acknowledged documents, re-rendering all documents",
    "deletes": "sink may have lost deletes, sweeping recent documents",
}
