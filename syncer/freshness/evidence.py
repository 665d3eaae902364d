"""Collects the facts about one read model from which its watermark is computed.

The facts belong to one session of the read model in this process. For the lanes of other processes, they are the
offsets that these lanes commit. For a lane of this process, they are the offsets that it has reached, which are known
sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from syncer.errors import Fatal, SyncerError
from syncer.freshness.candidates import ANY_READER, Basis, Confirmation
from syncer.freshness.switching import find_switch
from syncer.pacing import BackOff, SystemTime
from syncer.ports import DurabilityToken, DurableSink, Partition, not_committed
from syncer.postgres.fingerprint import Fingerprint, Tables
from syncer.registry.names import Names
from syncer.registry.records import BackfillRun, HandledTables, Registration, SlotReader, StateSlot
from syncer.registry.registry import Registry

_BASIS_MAX_AGE = 1.0  # seconds: an older basis can only refuse a candidate
_COMMITTED_EVERY = 0.1  # seconds
_ANSWERS_WITHIN = 0.02
"""Seconds to wait for an answer of Kafka. A later answer counts in a later call: other read models must not wait."""
_ASK_AGAIN = (0.1, 2.0)
"""The first and the longest pause, in seconds, before a sink that has failed is asked again. The caller repeats its
call many times a second."""


class Evidence:
    """The facts about one generation of a read model. For one thread.

    tables: of the session. sinks: all sinks of the read model.
    tokens: returns, by sink, the last durability token whose repair is durable.
    reached: returns the offsets that the lanes of this process have reached.
    watch: is called with the partitions that are waited for.
    committed: returns the offsets that the groups have committed, of those of these partitions that belong to other
        processes.
    dead_letters: returns the number of open dead letters.
    in_place: whether a sink shares its documents between generations.
    lookup_levels: of the compiled read model.
    time: the clock, and the threads on which servers are asked.
    """

    def __init__(
        self,
        registry: Registry,
        registration: Registration,
        names: Names,
        tables: Tables,
        sinks: Sequence[DurableSink],
        *,
        tokens: Callable[[], Mapping[str, DurabilityToken]],
        reached: Callable[[], Mapping[Partition, int]],
        watch: Callable[[Collection[Partition]], None],
        committed: Callable[[Collection[Partition]], Mapping[Partition, int]],
        dead_letters: Callable[[], int],
        in_place: bool,
        lookup_levels: int,
        time: SystemTime | None = None,
    ) -> None:
        self.model = registration.model
        self.change_topics: tuple[str, ...] = names.changes
        self.work_topics = names.work_topics
        self.dead_letters, self._in_place, self._lookup_levels = dead_letters, in_place, lookup_levels
        self._registry, self._registration, self._tables, self._sinks = registry, registration, tables, sinks
        self._tokens, self._reached, self._watch, self._read_committed = tokens, reached, watch, committed
        self._committed: dict[Partition, int] = {}
        self._read_committed_at = 0.0
        self._reading: Future[Mapping[Partition, int]] | None = None
        self._confirming: Future[tuple[dict[str, DurabilityToken], float]] | None = None
        self._time, self._back_off, self._ask_at = time or SystemTime(), BackOff(*_ASK_AGAIN), 0.0

    @property
    def fingerprint(self) -> Fingerprint:
        return self._tables.fingerprint

    def basis(self) -> Basis:
        """Returns the facts whose work is durable now. Raises Retry when the state cannot be read."""
        id = self._registration.id
        tokens = dict(self._tokens())
        values = self._registry.state.load(_BASIS_MAX_AGE)
        handled, reader, run = (
            values.get(HandledTables.key(id)),
            values.get(SlotReader.key(id)),
            values.get(BackfillRun.key(id)),
        )
        repairs = self._registry.config.source.repair_after_resume != "never"
        return Basis(
            id.number,
            self._registration.stream,
            handled.fingerprint if handled else "",
            (reader.reader if reader else None) if repairs else ANY_READER,
            bool(run and (run.complete or run.finished_ms)),
            tokens,
            self._lookup_levels,
            find_switch(values, self._registration, in_place=self._in_place),
        )

    def acknowledged(self, ends: Mapping[Partition, int]) -> dict[Partition, int]:
        """Returns the offsets before which every sink has acknowledged all records, as far as is known.

        ends: the offsets that are waited for. Asks Kafka for those of other processes, if one of them lies further.
        Does not wait for a slow answer. Raises Retry when Kafka was unavailable.
        """
        self._watch(ends)
        reached = dict(self._reached())
        found = {p: max(reached.get(p, 0), self._committed.get(p, 0)) for p in ends}
        now = self._time.monotonic()
        due = self._reading is None and now - self._read_committed_at >= _COMMITTED_EVERY
        if due and (left := not_committed(ends, found)):
            self._read_committed_at = now
            read = partial(self._read_committed, list(left))
            self._reading = self._time.run_in_background(f"{self.model}-committed", read)
        if self._reading and self._time.done(self._reading, _ANSWERS_WITHIN):
            future, self._reading = self._reading, None
            self._committed |= future.result()
            found = {p: max(reached.get(p, 0), self._committed.get(p, 0)) for p in ends}
        return found

    def confirmation(self, read_tables: Callable[[Fingerprint], str]) -> Confirmation | None:
        """Returns the facts of a moment after the first call; None while the sinks have not answered.

        read_tables: reads the fingerprint of the tables from PostgreSQL.
        Raises Retry when the state cannot be read or a sink does not answer. A later call asks again, after a pause.
        """
        if self._confirming is None:
            if self._time.monotonic() < self._ask_at:
                return None
            self._confirming = self._time.run_in_background(f"{self.model}-tokens", self._read_tokens)
        if not self._time.done(self._confirming, 0.0):
            return None
        future, self._confirming = self._confirming, None
        try:
            tokens, answered_at = future.result()
            values = self._registry.state.load_since(answered_at)  # all read models whose sinks have answered share it
        except SyncerError:
            self._ask_at = self._time.monotonic() + self._back_off.pause()
            raise
        self._back_off.reset()
        active = values.registration(self.model, StateSlot.ACTIVE)
        # A resync that writes in place has replaced documents, and this generation may not write them any more.
        switch = find_switch(values, self._registration, in_place=self._in_place)
        return Confirmation(active.generation if active else 0, switch, read_tables(self.fingerprint), tokens)

    def _read_tokens(self) -> tuple[dict[str, DurabilityToken], float]:
        """Returns the token of each sink, and the time after the last answer, in monotonic seconds.

        Raises no other errors than Retry and Fatal: one thread serves all read models.
        """
        try:
            return {sink.name: sink.durability() for sink in self._sinks}, self._time.monotonic()
        except SyncerError:
            raise
        except Exception as error:
            hint = "report this defect of the syncer, as CONTRIBUTING.md says"
            raise Fatal("unexpected answer of a sink", where=self.model, why=repr(error), hint=hint) from error
