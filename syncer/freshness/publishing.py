"""Publishes the watermarks of one read model in its sinks, where applications find them next to the documents.

Publishing is best effort. An error is logged at the level debug. A sink that answers slowly delays only its own
watermark. If a watermark is not published, the next one replaces it.

A watermark is published at the moment when it is confirmed, or never. Later, a sink may have lost documents: then an
earlier watermark would no longer be true there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial

import structlog

from syncer.clock import version
from syncer.freshness.tokens import format_lsn
from syncer.freshness.watermark import Watermark
from syncer.pacing import SystemTime
from syncer.ports import PublishedWatermark, PublishingSink

_EARLY = 0.9
"""Share of the interval after which the next watermark may come: they come at about the same interval."""
_LAST_WAIT = 2.0
"""Seconds that `close` waits for requests under way."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Outlet:
    """A sink, with the request that was sent to it last."""

    sink: PublishingSink
    request: Future[None] | None = None
    version: int = 0
    at: float = 0.0
    """When the request was sent, in monotonic seconds."""


class Publisher:
    """Publishes the watermarks of one session of a read model. For one thread.

    sinks: those that can keep a watermark.
    interval: about the seconds between two watermarks. 0: publishes nothing.
    is_leader: whether this process is the one that publishes.
    dead_letters: returns the number of open dead letters.
    """

    def __init__(
        self,
        model: str,
        epoch: int,
        sinks: Sequence[PublishingSink],
        *,
        interval: float,
        is_leader: Callable[[], bool],
        dead_letters: Callable[[], int],
    ) -> None:
        self._model, self._epoch = model, epoch
        self._outlets = [_Outlet(sink) for sink in sinks] if interval else []
        self._interval, self._is_leader, self._dead_letters = interval, is_leader, dead_letters

    def offer(self, watermark: Watermark, searchable: Watermark | None) -> None:
        """Publishes a watermark that was confirmed just now. Does not block.

        Leaves out sinks that have the watermark, that got one a moment ago, or that have not answered yet.
        """
        now, due = time.monotonic(), list[_Outlet]()
        for outlet in self._outlets:
            idle = outlet.request is None or outlet.request.done()
            if idle and now - outlet.at >= _EARLY * self._interval and self._version(watermark) > outlet.version:
                due.append(outlet)
        if not due or not self._is_leader():
            return
        found = self._published(watermark, searchable)
        for outlet in due:
            outlet.version, outlet.at = found.version, now
            work = partial(outlet.sink.publish, found)
            outlet.request = SystemTime().run_in_background(f"{self._model}-publish", work)
            outlet.request.add_done_callback(partial(_log_error, outlet.sink.name))

    def close(self) -> None:
        """Waits a moment for requests under way, because the caller closes the sinks."""
        wait([outlet.request for outlet in self._outlets if outlet.request], timeout=_LAST_WAIT)

    def _version(self, watermark: Watermark) -> int:
        return version(self._epoch, watermark.clock)

    def _published(self, watermark: Watermark, searchable: Watermark | None) -> PublishedWatermark:
        return PublishedWatermark(
            self._model,
            watermark.generation,
            self._epoch,
            watermark.clock,
            str(watermark.snapshot),
            watermark.taken_ms,
            format_lsn(watermark.floor_lsn),
            self._dead_letters(),
            searchable.clock if searchable else None,
            searchable.taken_ms if searchable else None,
        )


def _log_error(sink: str, request: Future[None]) -> None:
    if error := request.exception():
        log.debug("watermark not published", sink=sink, error=str(error))
