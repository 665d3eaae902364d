"""Keeps the watermarks of all read models of a daemon up to date, in a separate thread.

Every `freshness.interval`, and at once while a caller waits, it takes a candidate (`probe.py`). One candidate serves
all read models. When it is proved, each read model begins to process it (`watermark.py`), with the facts of its session
(`evidence.py`, `advancing.py`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

import psycopg
import structlog

from syncer.connect.definition import Definition
from syncer.connect.lookup import find_definition
from syncer.errors import Retry, SyncerError
from syncer.freshness.advancing import ModelEvidence, advance, reported
from syncer.freshness.candidates import Basis
from syncer.freshness.outlets import Outlets
from syncer.freshness.probe import Probe, offset_topic
from syncer.freshness.report import Freshness
from syncer.freshness.snapshots import observe
from syncer.freshness.tokens import Token
from syncer.freshness.waiting import Caller, Waiters
from syncer.freshness.watermark import Tracker, Watermark
from syncer.monitors.background import BackgroundThread
from syncer.ports import Partition, ends_of
from syncer.postgres import candidate
from syncer.postgres.fingerprint import Fingerprint
from syncer.postgres.session import connect
from syncer.registry.registry import Registry

_TIMEOUT = 5.0
"""Seconds for a statement."""
_PAUSE, _WAITED_PAUSE = 0.02, 0.005
"""Seconds to wait for records of Kafka, or for the lanes, without and with a caller who waits."""
_RETRY_AFTER, _RETRY_ENDS_AFTER = 1.0, 0.2  # seconds
_LEAST_PAUSE = 0.02
"""Seconds between two candidates, however many callers wait."""

log = structlog.get_logger()


class FreshnessMonitor(BackgroundThread):
    """Computes the watermarks of the read models that are attached. Any thread may call the public methods."""

    def __init__(self, registry: Registry) -> None:
        super().__init__("freshness")
        self.registry, self.probe = registry, Probe(registry)
        self.waiters = Waiters()
        self._models: dict[str, tuple[ModelEvidence, Tracker]] = {}
        self._outlets: dict[str, Outlets] = {}
        """Of the read models that are attached."""
        self._trackers: dict[str, Tracker] = {}
        """Also of read models that are not attached now: their watermark stays true."""
        self._failed: dict[str, SyncerError] = {}
        """Read models that have failed, with the error."""
        self._ending: set[str] = set()
        """Read models whose waits have to end."""
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._stream: int | None = None
        """The number of the stream when the last candidate was taken."""
        self._reader: object = None
        self._reader_before: object = None
        self._clock_offset = 0.0
        """Seconds by which PostgreSQL's clock is ahead of this process's."""
        self._wake = threading.Event()
        self._due = self._taken_at = 0.0
        self._read_ends_at: dict[str, float] = {}
        """Read model → when to read the ends of its work topics again, if they were unknown."""

    # -- any thread ----------------------------------------------------------------------------------

    def stop(self) -> None:
        super().stop()
        self._wake.set()

    def attach(self, evidence: ModelEvidence, outlets: Outlets) -> None:
        """Begins to keep the watermark of a read model that was opened."""
        with self._lock:
            self._outlets[evidence.model] = outlets
            tracker = self._trackers.setdefault(evidence.model, Tracker(evidence.model))
            tracker.switch = None  # of an earlier session: its generation may have been left
            self._models[evidence.model] = evidence, tracker
            self._failed.pop(evidence.model, None)

    def detach(self, evidence: ModelEvidence) -> None:
        """Stops to keep the watermark: the read model is closed."""
        with self._lock:
            if (known := self._models.get(evidence.model)) and known[0] is evidence:
                del self._models[evidence.model], self._outlets[evidence.model]

    def end_waits(self, model: str, error: SyncerError) -> None:
        """Ends the waits for a read model that has failed. Their error is a Retry (503) that says why it failed."""
        with self._lock:
            self._failed[model] = error
            self._ending.add(model)
        self._wake.set()

    def wait(self, model: str, token: Token) -> Caller:
        """Adds a caller that waits for a watermark that shows the token's commit.

        The error of its future is Refused for a token that can never be reached, and Retry if the read model fails or
        a resync switches readers meanwhile. Raises Retry if the read model is not open or a resync switches readers,
        and Later if too many callers wait.
        """
        known = self._models.get(model)
        if known is None:
            raise self._closed(model)
        if switch := known[1].switch:
            raise _for_caller(model, switch)
        caller = self.waiters.add(model, token)
        if model not in self._models:  # closed meanwhile: its waits may have been ended before
            caller.future.cancel()
            raise self._closed(model)
        self._wake.set()
        return caller

    def make_searchable(self, model: str, wanted: Watermark) -> Future[Watermark]:
        """Returns a future of a watermark that searches show, at least `wanted`. See `Searches.join`.

        Raises Retry if the read model is not open.
        """
        outlets = self._outlets.get(model)
        if outlets is None:
            raise self._closed(model)
        return outlets.searches.join(wanted)

    def watermark(self, model: str) -> Watermark | None:
        """Returns the watermark of a read model; None if there is none."""
        tracker = self._trackers.get(model)
        return tracker.watermark if tracker else None

    def freshness(self, model: str) -> Freshness:
        """Returns how fresh the documents of a read model are."""
        tracker, watermark, outlets = self._trackers.get(model), self.watermark(model), self._outlets.get(model)
        now = time.time() + self._clock_offset
        seconds = max(0.0, now - watermark.taken_ms / 1000) if watermark else None
        searchable = outlets.searches.reached if watermark and outlets else None
        if searchable and watermark and searchable.generation != watermark.generation:
            searchable = None
        reason = tracker.reason if tracker else "the read model is not open"
        return Freshness(watermark, seconds, reason, searchable)

    def reader(self) -> object:
        """Returns the reader of the slot that two candidates in a row have seen.

        A connector that starts has two readers, one after the other. The first of them does not count.
        """
        return self._reader

    def _closed(self, model: str) -> Retry:
        """Returns the error for callers of a read model that is not open."""
        if error := self._failed.get(model):
            return _for_caller(model, error)
        what = "the daemon does not keep this read model in sync now"
        return Retry(what, where=f"read model {model}", hint="GET /status says why")

    # -- on its thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._step()
            except (psycopg.Error, SyncerError) as error:
                log.debug("freshness cannot be measured", error=str(error))
                self._disconnect(f"freshness cannot be measured: {error}")
                self._stop.wait(_RETRY_AFTER)
            except Exception as error:  # a defect must not end the measurement of all read models
                log.exception("unexpected error")
                self._disconnect(f"freshness cannot be measured: a defect of the syncer: {error!r}")
                self._stop.wait(_RETRY_AFTER)
        with contextlib.suppress(SyncerError):
            self.probe.save()
        self._disconnect("the daemon stops")

    def _step(self) -> None:
        """Takes a candidate if one is due, reads from Kafka, and lets each read model advance."""
        self._wake.clear()
        self._end_waits()
        if self.waiters:
            self._map()
        if time.monotonic() >= self._due:
            self._take()
        with self._lock:
            models = dict(self._models)
        if self.probe.waiting or any(tracker.pending for _, tracker in models.values()):
            self.probe.poll(self._pause(models))
        else:
            self._wake.wait(_WAITED_PAUSE if self.waiters else max(0.0, self._due - time.monotonic()))
        self._begin(models)
        self._advance(models)

    def _pause(self, models: Mapping[str, tuple[ModelEvidence, Tracker]]) -> float:
        """Returns the seconds to wait for records of Kafka: 0 if a read model can advance without them."""
        if self._needing_work_ends(models):
            return 0.0
        return _WAITED_PAUSE if self.waiters else _PAUSE

    def _end_waits(self) -> None:
        with self._lock:
            ending, self._ending = {model: self._closed(model) for model in self._ending}, set()
        for model, error in ending.items():
            self.waiters.fail(model, error)

    def _map(self) -> None:
        """Maps the tokens of new callers, and brings the next candidate forward if they need one."""
        self.waiters.forget_cancelled()
        connection = self._session()
        if self.waiters.map(lambda token: observe(connection, token), self.watermark):
            self._due = min(self._due, self._taken_at + _LEAST_PAUSE)

    def _take(self) -> None:
        self._taken_at = time.monotonic()
        self._due = time.monotonic() + self.registry.config.freshness.interval
        with self._lock:
            tables = {model: evidence.fingerprint for model, (evidence, _) in self._models.items()}
            acknowledged = {model: tracker.taken() for model, (_, tracker) in self._models.items()}
        definition: Definition | None = None
        with contextlib.suppress(SyncerError):
            definition = find_definition(self.registry.config, names_only=True)
        session, before = self._session(), time.time()
        taken = self.probe.take(session, definition, tables, acknowledged)
        # The clock was read at some time since `before`. An offset that is too large only makes documents seem older.
        self._clock_offset = taken.taken_ms / 1000 - before
        if self._stream is not None and taken.stream != self._stream:
            for tracker in list(self._trackers.values()):
                tracker.clear("changes were lost: the read model has to be resynced")
        self._stream = taken.stream
        if taken.reader is not None and taken.reader == self._reader_before:
            self._reader = taken.reader
        self._reader_before = taken.reader
        if not self.probe.follows_offsets:
            topic = offset_topic(self.registry, definition)
            self._explain(f"topic {topic} of Kafka Connect's offsets does not exist: set connect.offset_topic")
        elif blocked := self.probe.blocked:
            for _, tracker in self._models.values():
                if not tracker.pending:
                    tracker.reason = blocked

    def _begin(self, models: Mapping[str, tuple[ModelEvidence, Tracker]]) -> None:
        """Gives a proved candidate to each read model. The ends are read after the proof, the bases before the ends."""
        proved = self.probe.proved(self._session())
        if proved is None or not models:
            return
        bases: dict[str, Basis] = {}
        for model, (evidence, tracker) in models.items():
            with reported(tracker):
                bases[model] = evidence.basis()
        known = {model: models[model] for model in bases}
        ends = self._ends(known, lambda evidence: evidence.change_topics)
        for model, (evidence, tracker) in known.items():
            with reported(tracker):
                tracker.add(proved, bases[model], ends_of(evidence.change_topics, ends))
            if tracker.switch:
                self.waiters.fail(model, tracker.switch)

    def _advance(self, models: Mapping[str, tuple[ModelEvidence, Tracker]]) -> None:
        needing = {model: models[model] for model in self._needing_work_ends(models)}
        ends = self._ends(needing, lambda evidence: evidence.work_topics)
        for model, (evidence, tracker) in needing.items():
            self._read_ends_at[model] = time.monotonic() + _RETRY_ENDS_AFTER
            with reported(tracker):
                tracker.work_ends(ends_of(evidence.work_topics, ends))
                self._read_ends_at[model] = 0.0
        for model, (evidence, tracker) in models.items():
            watermark = None
            with reported(tracker):  # an error of a sink: its token is read again
                watermark = advance(evidence, tracker, self._read_tables)
            if tracker.needs_candidate and self.waiters.wait_for(model):
                self._due = min(self._due, self._taken_at + _LEAST_PAUSE)
            if watermark:
                self.waiters.release(model, watermark)
                if outlets := self._outlets.get(model):
                    outlets.offer(watermark)
            elif tracker.switch:
                self.waiters.fail(model, tracker.switch)

    def _ends(
        self,
        models: Mapping[str, tuple[ModelEvidence, Tracker]],
        topics_of: Callable[[ModelEvidence], Collection[str]],
    ) -> Mapping[Partition, int]:
        """Returns the ends of the topics of these read models, as far as they are known now."""
        topics = {topic for evidence, _ in models.values() for topic in topics_of(evidence)}
        if not topics:
            return {}
        found: Mapping[Partition, int] = {}
        try:
            found = self.registry.changes.known_ends(topics)
        except SyncerError as error:  # Kafka is unreachable: no topic is known, and later candidates follow
            log.debug("ends cannot be read", error=str(error))
        return found

    def _needing_work_ends(self, models: Mapping[str, tuple[ModelEvidence, Tracker]]) -> list[str]:
        """Returns the read models that need ends now. One whose topic had none tries again a little later."""
        now = time.monotonic()
        needing = [model for model, (_, tracker) in models.items() if tracker.needs_work_ends]
        return [model for model in needing if now >= self._read_ends_at.get(model, 0.0)]

    def _read_tables(self, fingerprint: Fingerprint) -> str:
        return candidate.read_fingerprint(self._session(), fingerprint)

    def _explain(self, reason: str) -> None:
        for _, tracker in list(self._models.values()):
            tracker.reason = reason

    def _session(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.registry.config.postgres.arguments(), statement_timeout=_TIMEOUT)
        return self._connection

    def _disconnect(self, reason: str) -> None:
        self.probe.close()
        self._explain(reason)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _for_caller(model: str, error: SyncerError) -> Retry:
    """Returns an error (503) of its own for each caller: one that is raised again and again collects tracebacks."""
    return Retry(error.what, where=model, why=error.why, hint=error.hint)
