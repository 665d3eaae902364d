"""Sinks that forget: what is done when one has lost the memory of deletes, or acknowledged writes.

Both happen to servers that are otherwise in order, and neither is told by an error. So the sinks are asked
every few seconds what their memory hangs on (`DurableSink.durability`), and the answer is compared with the one before,
which is kept in the state topic.

    deletes forgotten   An older write that is still on its way can bring a document back. None is sent after
                        `max_age`; so later than that, the documents that were written meanwhile are rendered
                        again (a sweep), and those without a row go.
    documents lost      Every root is rendered again, as in a backfill. Then a sweep of all that the sink
                        holds: deletes are lost, too.

The work is durable before the new answer is. Each process judges by what it has seen itself: one that
could still reach the old primary after the others had noticed the new one may have lost more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import structlog

from syncer.errors import Retry
from syncer.events import WorkItem
from syncer.ports import DurabilityToken, DurableSink, WorkTopic

_NOTE_EVERY_MS = 60_000

log = structlog.get_logger()

Noted = Mapping[str, Iterable[str]]
"""Sink's name → its `DurabilityToken`, as JSON has it."""


class SinkDurabilityMonitor:
    """Of one generation of one read model.

    seen: what this process saw last, by sink; outlives this object. noted: what was written down.
    note: writes down. work: takes the sweeps. refill: has every root rendered; durable when it returns.
    lost: told the sink's name and what it lost, `deletes` or `documents`.
    """

    def __init__(
        self,
        model: str,
        sinks: Iterable[DurableSink],
        *,
        seen: dict[str, DurabilityToken],
        noted: Noted,
        note: Callable[[Noted], None],
        work: WorkTopic,
        refill: Callable[[], None],
        lost: Callable[[str, str], None],
        max_age: float,
    ) -> None:
        self.model, self.sinks, self.max_age = model, list(sinks), max_age
        self._seen, self._note, self._work, self._refill, self._lost = seen, note, work, refill, lost
        self._written: dict[str, str] = {}
        self._noted_ms = 0
        for name, memory in noted.items():
            self._seen.setdefault(name, DurabilityToken(*memory))

    def look(self, now_ms: int) -> None:
        """Ask each sink; have done what follows. Raises Fatal, and Retry if one of them cannot tell now."""
        away: Retry | None = None
        for sink in self.sinks:
            try:
                self._compare(sink.name, sink.durability(), now_ms)
            except Retry as error:
                away = error
        if away is not None:
            raise away

    def _compare(self, sink: str, found: DurabilityToken, now_ms: int) -> None:
        before = self._seen.get(sink)
        changed = before is None or before[:2] != found[:2]
        if before is not None and changed:
            self._mend(sink, before, found, now_ms)
        # How far the writes were is taken from the look before this one: a shard that moves takes writes in
        # its new place an instant before the cluster tells of it.
        written = self._written.get(sink, before.written if before else found.written)
        seen = {**self._seen, sink: found._replace(written=written)}
        if changed or now_ms - self._noted_ms > _NOTE_EVERY_MS:
            self._note({name: tuple(memory) for name, memory in seen.items()})
            self._noted_ms = now_ms
        self._seen[sink], self._written[sink] = seen[sink], found.written

    def _mend(self, sink: str, before: DurabilityToken, found: DurabilityToken, now_ms: int) -> None:
        what = "documents" if found.documents != before.documents else "deletes"
        # A document is sent within `max_age`, and held by the sink while it waits for a shard for as long
        # again; twice that, for a process that stands still between looking at the time and sending.
        later = now_ms + int(4000 * self.max_age)
        since = before.written
        if what == "documents":
            self._refill()
            since = ""
        self._work.put(WorkItem("sweep", f"lost {what}", not_before_ms=later, sink=sink, since=since))
        self._work.flush()
        self._lost(sink, what)
        log.warning(_TOLD[what], model=self.model, sink=sink, sweep_after_s=round(4 * self.max_age))


_TOLD = {
    "documents": "the sink may have lost acknowledged documents: all are rendered again, then swept",
    "deletes": "the sink may have forgotten deletes: what it is given meanwhile is swept for ghosts",
}
