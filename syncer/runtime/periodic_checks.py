"""Looks after a read model while its lanes run: what they cannot see, or look at only when there is work.

    tables       were they altered? did another server take this one's place?   `rows/`, `clock.py`
    sinks        did one lose its memory? do readers see another index?         `monitors/sink_durability.py`,
    `registry/loader.py`
    altered      are all documents to be rendered again?                        `monitors/table_alterations.py`
    the stream   were changes lost? is there a new generation?                  `registry/registry.py`

The first three ask servers that may be silent for a minute or for good, or wait an hour for transactions.
So each is done beside, and holds up neither the others nor the last; and one that never ends is told.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from syncer.errors import Retry, SyncerError
from syncer.pacing import Stopped, SystemTime, Waiter
from syncer.postgres.fingerprint import Fingerprint
from syncer.registry import loader
from syncer.registry.records import StateSlot
from syncer.runtime.opening import REGISTERED_FOR, ModelOpener, ModelSession
from syncer.telemetry.metrics import ModelMetrics

LOOK_EVERY = REGISTERED_FOR + 1
"""Seconds between two looks."""
_TICK = 0.05
_PLANS_WITHIN = 3600.0  # seconds: to plan is one statement without a time-out, a walk over a large index


class BackgroundTask:
    """One thing that is done again and again, never twice at a time, on a thread of its own.

    For one thread to use; `silent` may be asked by any.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._moved = 0.0
        self._future: Future[None] | None = None

    def ready(self) -> bool:
        """Whether it can be begun. Raises what it ended with the last time."""
        if self._future is not None:
            if not self._future.done():
                return False
            last, self._future = self._future, None
            last.result()
        return True

    def begin(self, work: Callable[[], None]) -> None:
        self.moved()
        self._future = SystemTime().run_in_background(self.name, work)

    def moved(self) -> None:
        """It goes on."""
        self._moved = time.monotonic()

    def silent(self) -> float:
        """Seconds since it moved; 0 if it is not under way."""
        future = self._future
        return 0.0 if future is None or future.done() else time.monotonic() - self._moved

    def at_end(self, close: Callable[[], None]) -> None:
        """Close what it uses, as soon as it does not."""
        if self._future is None:
            close()
        else:
            self._future.add_done_callback(lambda _: close())


class PeriodicChecks:
    """Of one opening of a read model, until its lanes end.

    stop: set to stop the read model. ended: set when a lane has ended.
    leads: whether this process is the one that has all documents rendered again if they may be wrong.
    reader: of the connector's slot, as last seen; a hint that there is another one.
    """

    def __init__(
        self,
        opened: ModelSession,
        opening: ModelOpener,
        metrics: ModelMetrics,
        *,
        stop: threading.Event,
        ended: threading.Event,
        is_leader: Callable[[], bool],
        reader: Callable[[], object] = lambda: None,
    ) -> None:
        self.opened, self.opening, self.metrics = opened, opening, metrics
        self._is_leader, self._reader = is_leader, reader
        self._stop, self._ended = stop, ended
        self._moved = time.monotonic()
        name = opened.loaded.name
        self._tables, self._sinks = BackgroundTask(f"{name}-tables"), BackgroundTask(f"{name}-sinks")
        self._altered = BackgroundTask(f"{name}-altered")
        self._rows = opened.rows()
        self._noted = opened.clock.highest
        self.misread, self._misread = "", ""
        """What readers see instead of what is kept in sync, and as of the last look. It is reported when two
        looks have found it, because a resync moves readers a moment before the daemon follows."""
        self._compared: tuple[Fingerprint | None, object] = None, None
        """Of the tables, and the slot's reader, that were last compared with those that were noted."""
        self._not_before = 0.0

    @property
    def settled(self) -> bool:
        """Whether all was handed out that follows from altered tables and from a connector that resumed."""
        tables, reader = self._compared
        return tables is self.opened.tables.fingerprint and reader == self._reader()

    def stalled(self, after: float) -> str:
        """Why this is not alive; empty when it is. after: seconds."""
        plans = max(after, _PLANS_WITHIN)
        for beside, within in ((self._tables, after), (self._sinks, plans), (self._altered, plans)):
            if (silent := beside.silent()) > within:
                return f"supervision: {beside.name} has not answered for {silent:.0f} s"
        silent = time.monotonic() - self._moved
        return f"the supervision has not moved for {silent:.0f} s" if silent > after else ""

    def run(self) -> None:
        """Until told to stop or a lane ends. Raises Fatal, and Retry to have the read model opened again."""
        due = time.monotonic() + LOOK_EVERY
        self.metrics.dead_letters(len(self.opened.letters))
        while not self._over(_TICK):
            self._moved = time.monotonic()
            self._render_again()
            if self._moved < due:
                continue
            if self._tables.ready():
                self._tables.begin(self._look_at_tables)
            if self._sinks.ready():
                self._sinks.begin(self._look_at_sinks)
            self._look_at_state()
            self.metrics.dead_letters(len(self.opened.letters))
            due = time.monotonic() + LOOK_EVERY

    def close(self) -> None:
        """Once the lanes have ended. A look that is still under way would open again what is closed now."""
        self._tables.at_end(self._rows.close)
        for sink in self.opened.sinks:
            self._sinks.at_end(sink.close)

    def _look_at_tables(self) -> None:
        """The lanes look only when there is work."""
        clock, floor = self.opened.clock, self.opened.clock.highest
        with self._rows.view(root_only=True) as view:  # Retry if altered, and to be compiled again
            head = view.head
        clock.version(head.identity, head.snapshot.clock, floor=floor, model=self.opened.loaded.name)

    def _look_at_sinks(self) -> None:
        with contextlib.suppress(Retry):  # one is away: the lanes tell it, if it lasts
            self.opened.memories.look(SystemTime().now_ms())
        if self.opening.slot is StateSlot.ACTIVE:
            with contextlib.suppress(SyncerError):
                self._look_at_readers()

    def _look_at_readers(self) -> None:
        opened = self.opened
        found = loader.misread(opened.config, opened.loaded.model, opened.registration.generation)
        now = " ".join(str(error) for error in found.values() if error)
        self.misread, self._misread = now if self._misread else "", now
        for kind, error in found.items():
            self.metrics.readers_elsewhere(kind, bool(error and self.misread))

    def _look_at_state(self) -> None:
        """And write down the highest clock, so that a restart notices one that ran backwards."""
        opened, registry = self.opened, self.opened.registry
        try:
            generation = self.opening.registered()
            registry.check_unbroken(opened.registration, REGISTERED_FOR)
            registry.check_clock(opened.registration, REGISTERED_FOR)
            registry.check_topics(opened.registration)
            opened.learn_breaker()
            if (highest := opened.clock.highest) > self._noted:
                opened.note_clock()
                self._noted = highest
        except Retry:  # Kafka is away: the lanes tell it, if it lasts
            return
        if generation != opened.registration.generation:
            what = "the read model was resynced: its new generation is opened"
            raise Retry(what, where=opened.loaded.name)
        with contextlib.suppress(Retry):
            opened.letters.refresh(timeout=1.0)

    def _render_again(self) -> None:
        """If documents may be wrong although no change event says so, also while nothing ran."""
        if not self._altered.ready() or self.settled or not self._is_leader():
            return
        if time.monotonic() < self._not_before:
            return
        opened, found = self.opened, (self.opened.tables.fingerprint, self._reader())

        def keep() -> None:
            self._altered.moved()
            if self._over() or not self._is_leader():  # whoever leads now begins anew
                raise Stopped

        def compare() -> None:
            size, wait = opened.config.backfill.range_documents, Waiter(self._ended, keep)
            with contextlib.closing(opened.rows()) as rows, contextlib.suppress(Stopped):
                outcome = opened.alterations.render_again(rows, size, wait)
                if outcome.reason:
                    self.metrics.refresh(outcome.reason)
                if outcome.later:
                    self._not_before = time.monotonic() + LOOK_EVERY
                else:
                    self._compared = found

        self._altered.begin(compare)

    def _over(self, seconds: float = 0.0) -> bool:
        """Whether it is told to stop, or a lane has ended, within so many seconds."""
        return self._stop.is_set() or self._ended.wait(seconds) or self._stop.is_set()
