"""Checks a read model while its lanes run: conditions that lanes cannot see, or see only when there is work.

    tables       Were they altered? Did another server take this one's place?   `postgres/fingerprint.py`, `clock.py`
    sinks        Did a sink lose writes? Do readers see another index?          `monitors/sink_durability.py`,
                                                                                `registry/loader.py`
    altered      Must all documents be re-rendered?                             `monitors/table_alterations.py`
    the stream   Were changes lost? Is there a new generation?                  `registry/registry.py`

The first three send requests to servers that may not answer for a minute, or never. The third may wait an hour for
open transactions. So each of them runs on a thread of its own, and delays neither the others nor the last. Each of
them has a heartbeat, so `/livez` fails if one never ends.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from syncer.errors import Retry, SyncerError
from syncer.pacing import Stopped, SystemTime, Waiter
from syncer.postgres.fingerprint import Fingerprint
from syncer.registry import loader
from syncer.registry.records import BuildReport, StateSlot
from syncer.runtime.heartbeats import Heartbeats
from syncer.runtime.opening import ModelOpener
from syncer.session import REGISTERED_FOR, ModelSession
from syncer.telemetry.metrics import ModelMetrics

CHECK_EVERY = REGISTERED_FOR + 1
"""Seconds between two checks."""
_OUTAGE = 15.0
"""Seconds for which Kafka may not answer before the read model is opened again, which reports the outage."""
_BUILT_EVERY = 15.0
"""Seconds between two reports of a process that builds a generation. `monitors/model_progress.py` reads them."""
_TICK = 0.05
_PLANNING_LIMIT = 3600.0  # seconds: planning is one statement without a timeout, a walk over a large index


class BackgroundTask:
    """Repeats one piece of work on a thread of its own, never twice at the same time.

    One thread calls the methods. `heartbeat` may be read by any thread.

    limit: seconds without progress after which the task counts as stalled; None for the limit of the table.
    """

    def __init__(self, model: str, name: str, heartbeats: Heartbeats, *, limit: float | None = None) -> None:
        self.name = f"{model}-{name}"
        text = f"{model}: the check of {name} has made no progress for"
        self.heartbeat = heartbeats.add(lambda seconds: f"{text} {seconds:.0f} s", limit=limit)
        self._future: Future[None] | None = None

    def ready(self) -> bool:
        """Returns whether the task can begin. Raises the error of its last run, once."""
        if self._future is not None:
            if not self._future.done():
                return False
            last, self._future = self._future, None
            last.result()
        return True

    def begin(self, work: Callable[[], None]) -> None:
        """Starts the work. Only to be called after `ready` has returned True."""

        def run() -> None:
            try:
                work()
            finally:
                self.heartbeat.end()

        self.heartbeat.start()
        self._future = SystemTime().run_in_background(self.name, run)

    def at_end(self, close: Callable[[], None]) -> None:
        """Calls `close` as soon as the task no longer uses the resource: now, or when its current run ends."""
        if self._future is None:
            close()
        else:
            self._future.add_done_callback(lambda _: close())


class Outage:
    """Lets the errors of an outage pass for a while, and then raises them.

    The lanes report most outages of Kafka sooner. But Kafka's client does not tell an idle lane about every outage.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def failed(self, error: Retry, now: float) -> None:
        """Raises the error if the outage has lasted. now: monotonic seconds."""
        if self._since is None:
            self._since = now
        if now - self._since > _OUTAGE:
            raise error

    def ended(self) -> None:
        self._since = None


class PeriodicChecks:
    """Runs the checks of one session of a read model, until its lanes end.

    beat: the heartbeat of the calling thread.
    stop: set to stop the read model. ended: set when a lane has ended.
    is_leader: whether this process is the one that re-renders all documents if they may be wrong.
    reader: the process that reads the connector's slot, as last seen. A new one is a hint to compare.
    """

    def __init__(
        self,
        session: ModelSession,
        opener: ModelOpener,
        metrics: ModelMetrics,
        heartbeats: Heartbeats,
        *,
        beat: Callable[[], None],
        stop: threading.Event,
        ended: threading.Event,
        is_leader: Callable[[], bool],
        reader: Callable[[], object],
    ) -> None:
        self.session, self.opener, self.metrics = session, opener, metrics
        self._is_leader, self._reader = is_leader, reader
        self._stop, self._ended, self._beat = stop, ended, beat
        model, planning = session.loaded.name, max(heartbeats.limit, _PLANNING_LIMIT)
        self._tables = BackgroundTask(model, "tables", heartbeats)
        self._sinks = BackgroundTask(model, "sinks", heartbeats, limit=planning)
        self._altered = BackgroundTask(model, "alterations", heartbeats, limit=planning)
        self._rows = session.rows()
        self._saved_clock = session.clock.highest
        self._built_at = -math.inf
        self._outage = Outage()
        self.readers_elsewhere = ""
        """Which other index readers see, instead of the one that is kept in sync; empty if they see that one.

        It is reported when two checks in a row have found it: a resync moves the readers a moment before the
        daemon follows.
        """
        self._elsewhere_before = ""
        self._compared: tuple[Fingerprint | None, object] = None, None
        """The fingerprint of the tables and the reader of the slot that were compared last."""
        self._not_before = 0.0

    @property
    def alterations_scheduled(self) -> bool:
        """Whether all work that follows from altered tables and a resumed connector was scheduled."""
        tables, reader = self._compared
        return tables is self.session.tables.fingerprint and reader == self._reader()

    def run(self) -> None:
        """Runs until `stop` is set or a lane ends. Raises Fatal, and Retry to have the read model opened again."""
        due = time.monotonic() + CHECK_EVERY
        self.metrics.dead_letters(len(self.session.dead_letters))
        while not self._over(_TICK):
            self._beat()
            self._render_again()
            if time.monotonic() < due:
                continue
            if self._tables.ready():
                self._tables.begin(self._check_tables)
            if self._sinks.ready():
                self._sinks.begin(self._check_sinks)
            self._check_state()
            self.metrics.dead_letters(len(self.session.dead_letters))
            due = time.monotonic() + CHECK_EVERY

    def close(self) -> None:
        """Releases all resources, once the lanes have ended.

        A check that still runs would reopen a connection that is closed now. So its connections are closed when it
        ends. It no longer counts for `/livez`.
        """
        for task in (self._tables, self._sinks, self._altered):
            task.heartbeat.end()
        self._tables.at_end(self._rows.close)
        for sink in self.session.sinks:
            self._sinks.at_end(sink.close)

    def _check_tables(self) -> None:
        """Checks the tables and the server also while no work arrives. The lanes check only when there is work."""
        clock, floor = self.session.clock, self.session.clock.highest
        with self._rows.view(root_only=True) as view:  # raises Retry if the tables have to be compiled again
            head = view.head
        clock.version(head.identity, head.snapshot.clock, floor=floor, model=self.session.loaded.name)

    def _check_sinks(self) -> None:
        with contextlib.suppress(Retry):  # a sink is unreachable: the lanes report it, if it lasts
            self.session.durability.check(SystemTime().now_ms())
        if self.opener.slot is StateSlot.ACTIVE:
            with contextlib.suppress(SyncerError):
                self._check_readers()

    def _check_readers(self) -> None:
        session = self.session
        found = loader.readers_elsewhere(session.config, session.loaded.model, session.registration.generation)
        now = " ".join(str(error) for error in found.values() if error)
        self.readers_elsewhere, self._elsewhere_before = now if self._elsewhere_before else "", now
        for kind, error in found.items():
            self.metrics.readers_elsewhere(kind, bool(error and self.readers_elsewhere))

    def _check_state(self) -> None:
        """Checks the state topic. Saves the highest clock, so that a restart detects a clock that ran backwards."""
        session, registry = self.session, self.session.registry
        try:
            generation = self.opener.registered()
            registry.check_unbroken(session.registration, REGISTERED_FOR)
            registry.check_clock(session.registration, REGISTERED_FOR)
            registry.check_topics(session.registration)
            session.learn_breaker()
            if (highest := session.clock.highest) > self._saved_clock:
                session.save_clock()
                self._saved_clock = highest
            self._report_build()
        except Retry as error:  # Kafka is unreachable
            self._outage.failed(error, time.monotonic())
            return
        self._outage.ended()
        if generation != session.registration.generation:
            what = "the read model was resynced: opening its new generation"
            raise Retry(what, where=session.loaded.name)
        with contextlib.suppress(Retry):
            session.dead_letters.refresh(timeout=1.0)

    def _report_build(self) -> None:
        """Records that this process is alive, if it builds a generation. Raises Retry when Kafka is unreachable."""
        now, session = time.monotonic(), self.session
        if self.opener.slot is StateSlot.NEXT and now - self._built_at >= _BUILT_EVERY:
            report = BuildReport(SystemTime().now_ms())
            session.registry.state.save(BuildReport.key(session.registration.id), report)
            self._built_at = now

    def _render_again(self) -> None:
        """Re-renders all documents if they may be wrong although no change event says so.

        That includes alterations that happened while no daemon ran.
        """
        if not self._altered.ready() or self.alterations_scheduled or not self._is_leader():
            return
        if time.monotonic() < self._not_before:
            return
        session, found = self.session, (self.session.tables.fingerprint, self._reader())

        def heartbeat() -> None:
            self._altered.heartbeat.beat()
            if self._over() or not self._is_leader():  # the new leader starts over
                raise Stopped

        def compare() -> None:
            size, wait = session.config.backfill.range_documents, Waiter(self._ended, heartbeat)
            with contextlib.closing(session.rows()) as rows, contextlib.suppress(Stopped):
                outcome = session.alterations.render_again(rows, size, wait)
                if outcome.reason:
                    self.metrics.refresh(outcome.reason)
                if outcome.later:
                    self._not_before = time.monotonic() + CHECK_EVERY
                else:
                    session.alterations.record_handled(found[0].value)
                    self._compared = found

        self._altered.begin(compare)

    def _over(self, seconds: float = 0.0) -> bool:
        """Returns whether a stop was requested or a lane has ended, waiting up to `seconds` for it."""
        return self._stop.is_set() or self._ended.wait(seconds) or self._stop.is_set()
