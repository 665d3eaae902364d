"""Runs the lanes of refreshes: the pipeline of the stream, over the queue of keys.

The lanes render in their own snapshots and write to the sinks directly, concurrently with the stream. A sink keeps the
higher version, so both may write the same document. The threads start with the first request.

A lane that ends with an error gives the error to its callers. The next batch gets a new lane with new connections. The
circuit breaker of the stream does not count these writes. Otherwise, a caller could choose only bad documents, and so
stop the read model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import structlog

from syncer.document import Outcome
from syncer.errors import Fatal, Reject, Retry, SyncerError
from syncer.freshness.refresh_queue import RefreshQueue, RefreshSource
from syncer.monitors.slow_call import SlowCall
from syncer.pacing import Stopped
from syncer.pipeline.lane import Lane
from syncer.telemetry.metrics import ModelMetrics

_PAUSE = 0.2
"""Seconds after a lane ended with an error."""

log = structlog.get_logger()


class RefreshObserver:
    """Implements `ports.Observer` for a lane of refreshes. Its lag is none: the callers wait."""

    def __init__(self, metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self._reason = ""
        self._write, self._postgres = SlowCall(), SlowCall()

    @property
    def reason(self) -> str:
        """Returns why the lane waits; empty while it goes on."""
        return self._reason or self._write.reason or self._postgres.reason

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with self._metrics.stage(name), self._postgres.stage(name):
            yield

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        """Never called: the lane reads no change events."""

    def dirty(self, roots: int, shown: int) -> None:
        """Never called: the roots are known."""

    def refresh(self, reason: str) -> None:
        """Never called: no table is truncated."""

    def gate(self, seconds: float) -> None:
        self._metrics.gate(seconds)

    def waiting(self, reason: str) -> None:
        self._reason = reason

    def writing(self, sink: str) -> AbstractContextManager[object]:
        return self._write.write(sink)

    def written(self, sink: str, outcome: Outcome) -> None:
        self._metrics.written(sink, outcome)

    def rejected(self, error: Reject) -> None:
        self._metrics.error("reject")
        log.error("dead letter written", model=self._metrics.name, lane="refresh", error=error)

    def delayed(self, roots: int) -> None:
        """Never called: a refresh is not delayed."""

    def reordered(self, documents: int) -> None:
        """Never called: the order lane has another observer."""

    def cycles(self, relation: str, found: Sequence[str]) -> None:
        """Never called: the lane reads no change events."""

    def lag(self, records: int, seconds: float) -> None:
        """Ignored."""


class RefreshLanes:
    """number: of threads. make: returns the source and the lane of a thread with this number."""

    def __init__(
        self,
        name: str,
        number: int,
        queue: RefreshQueue,
        make: Callable[[int, RefreshObserver, threading.Event], tuple[RefreshSource, Lane]],
        metrics: ModelMetrics,
    ) -> None:
        self._name, self._queue, self._make = name, queue, make
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._observers = [RefreshObserver(metrics) for _ in range(number)]
        self._threads: list[threading.Thread] = []

    @property
    def reason(self) -> str:
        """Why a lane waits; empty if none does."""
        return next((observer.reason for observer in self._observers if observer.reason), "")

    def start(self) -> None:
        """Starts the threads, unless they run or the lanes are closed."""
        with self._lock:
            if self._threads or self._stop.is_set():
                return
            for number, observer in enumerate(self._observers):
                thread = threading.Thread(
                    target=self._run, args=(number, observer), name=f"{self._name}-refresh-{number}", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        """Ends the lanes. Callers that still wait get a Retry. Waits for the writes under way."""
        with self._lock:
            self._stop.set()
        self._queue.close(_closed(self._name))
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, observer: RefreshObserver) -> None:
        while not self._stop.is_set():
            source, lane = self._make(number, observer, self._stop)
            try:
                lane.run()
            except Stopped:
                source.fail(_closed(self._name))
            except SyncerError as error:
                source.fail(error)
            except Exception as error:
                log.exception("unexpected error", model=self._name, lane="refresh")
                source.fail(Fatal("unexpected error", where=self._name, why=repr(error), hint="see the log"))
            observer.waiting("")
            self._stop.wait(_PAUSE)


def _closed(name: str) -> Retry:
    return Retry("the read model is being stopped or opened again", where=name, hint="send the request again")
