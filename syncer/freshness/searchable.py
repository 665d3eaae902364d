"""Makes the documents of one read model searchable for callers who wait, with as few refreshes as possible.

A caller joins the next refresh, not the one that is running: that one may have begun before the caller's document was
written. So however many callers come, one refresh runs and at most one more is due.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from syncer.errors import Retry
from syncer.freshness.watermark import Watermark
from syncer.pacing import SystemTime
from syncer.ports import SearchableSink

_TIMEOUT = 30.0
"""Seconds for the refresh of one sink."""


class Searches:
    """The searches of one open read model. Any thread may call the methods.

    sinks: those whose searches see a write only after a refresh.
    watermark: returns the watermark of the moment.
    """

    def __init__(self, model: str, sinks: Sequence[SearchableSink], watermark: Callable[[], Watermark | None]) -> None:
        self._model, self._sinks, self._watermark = model, sinks, watermark
        self._lock = threading.Lock()
        self._next: Future[Watermark] | None = None
        self._running = self._closed = False
        self._reached: Watermark | None = None

    @property
    def reached(self) -> Watermark | None:
        """The watermark that searches are known to show. None if it is unknown."""
        return self._reached if self._sinks else self._watermark()

    def join(self, wanted: Watermark) -> Future[Watermark]:
        """Returns a future of a watermark that searches show, at least `wanted`. Do not cancel it: callers share it.

        Its error is that of a sink, or Retry if the read model is closed meanwhile.
        """
        reached = self.reached
        if reached and reached.identity == wanted.identity and reached.clock >= wanted.clock:
            done: Future[Watermark] = Future()
            done.set_result(reached)
            return done
        with self._lock:
            if self._next is None:
                self._next = Future()
            following = self._next
            start = not (self._running or self._closed)
            self._running = self._running or start
        if start:
            SystemTime().run_in_background(f"{self._model}-searchable", self._run)
        if self._closed:
            self.close()
        return following

    def close(self) -> None:
        """Ends the waits for the next refresh. A refresh that runs goes on."""
        with self._lock:
            self._closed = True
            waiting, self._next = self._next, None
        if waiting:
            waiting.set_exception(self._gone())

    def _run(self) -> None:
        while True:
            with self._lock:
                following, self._next = self._next, None  # later callers join the refresh after it
                if following is None:
                    self._running = False
                    return
            try:
                following.set_result(self._refresh())
            except Exception as error:
                following.set_exception(error)

    def _refresh(self) -> Watermark:
        shown = self._watermark()  # read before the refresh: all of it is written
        if shown is None:
            raise self._gone()
        for sink in self._sinks:
            sink.make_searchable(_TIMEOUT)
        self._reached = shown
        return shown

    def _gone(self) -> Retry:
        return Retry(
            "the read model was closed or has no watermark now",
            where=f"read model {self._model}",
            hint="GET /status says why",
        )
