"""Registers a read model once: topics, starting offsets, epoch and generation. Refuses one that was changed.

The order matters. The registry records the starting offsets before the first event is read and before the backfill
takes a snapshot. So every change that the backfill does not see arrives as an event.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from syncer.checks.table_state import FORM, TableState
from syncer.clock import ran_backwards
from syncer.config.schema import Config
from syncer.declaration.compile import Compiled, form_of
from syncer.declaration.sql_types import KEYABLE, family
from syncer.errors import Fatal
from syncer.events import TableName
from syncer.ports import Backend, DeadLetterStore, WorkQueue
from syncer.postgres.session import connect
from syncer.registry.names import Names
from syncer.registry.records import (
    Activated,
    BuiltSinks,
    ClockRanBackwards,
    Generation,
    HighestClock,
    Key,
    Registration,
    RenderBasis,
    StateSlot,
    Stream,
    SwapAnnounced,
    WeakIdentity,
)
from syncer.registry.state import State, StateSnapshot

_LOOK_BACK_MS = 600_000
_CHECK_MAX_AGE = 60.0  # seconds: one load of the state serves all checks of one command
_BEGINNING = """
SELECT (extract(epoch FROM min(began)) * 1000)::bigint, pg_catalog.pg_current_snapshot()::text,
       (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint
  FROM (SELECT xact_start FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL
         UNION ALL SELECT prepared FROM pg_catalog.pg_prepared_xacts) AS open (began)"""


class RegisteredModel(NamedTuple):
    """A read model that is registered, and what else is recorded of it."""

    registration: Registration
    names: Names
    clock: HighestClock | None
    """The highest clock that was seen in this epoch; None if none was."""
    built: bool
    """Its sinks have been built. If a target is missing now, it was lost."""


class Registry:
    """Everything that the syncer stores outside the sinks, for one configuration. Any thread may use it."""

    def __init__(self, config: Config, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.changes = backend.changes
        self.state = State(backend.state)

    def names(self, model: str, tables: Iterable[TableName], generation: int) -> Names:
        return Names.make(self.config, model, tables, generation)

    def work_queue(self, names: Names) -> WorkQueue:
        """Returns the queue of fan-outs, renders and sweeps."""
        return self.backend.work_queue(names.work_topic)

    def backfill_queue(self, names: Names) -> WorkQueue:
        """Returns the queue of a backfill's ranges. So a fan-out does not wait for hours of them."""
        return self.backend.work_queue(names.backfill_topic)

    def delayed_queue(self, names: Names) -> WorkQueue:
        """Returns the queue of roots that change often. Its items wait until `min_interval` has passed."""
        return self.backend.work_queue(names.delayed_topic)

    def queues(self, names: Names) -> tuple[WorkQueue, ...]:
        """Returns all queues of work items."""
        return tuple(map(self.backend.work_queue, names.work_topics))

    def dead_letters(self, model: str) -> DeadLetterStore:
        """Returns the dead letters of all generations of a read model."""
        return self.backend.dead_letters(self.names(model, (), 1).dead_letters)

    def registered(
        self, model: str, slot: StateSlot = StateSlot.ACTIVE, *, max_age: float = 0.0
    ) -> Registration | None:
        """Returns the active registration, or the one that a resync builds. None if there is none."""
        return self.state.load(max_age).registration(model, slot)

    def open(self, compiled: Compiled, slot: StateSlot = StateSlot.ACTIVE) -> RegisteredModel:
        """Registers the read model if it is new.

        Raises Fatal when its documents were rendered from another declaration, or from columns of other types.
        """
        self.state.prepare()  # a store that looks empty would be taken for a new one
        values = self.state.load()
        registration = values.registration(compiled.name, slot)
        if registration:
            self.check_unbroken(registration)
            self.check_clock(registration)
        names = self.names(compiled.name, compiled.tables, registration.generation if registration else 1)
        self._create(names)
        if registration:
            self.check_topics(registration)
        elif slot is StateSlot.NEXT:
            raise superseded(compiled.name)
        else:
            registration = self.register(compiled, names, epoch=1, generation=1)
        built = values.get(BuiltSinks.key(registration.id)) is not None
        if registration.hash != compiled.hash and not built:
            # Nothing was rendered from the earlier declaration. Where it began holds for this one, too.
            registration = replace(registration, hash=compiled.hash)
            self.state.save(Registration.key(registration.id), registration)
        check_hash(registration, compiled, _tables(values, registration))
        starts = {(t, int(p)): o for t, all_ in registration.starts.items() for p, o in all_.items()}
        have = self.changes.committed(names.group, starts)
        self.changes.commit(names.group, {p: o for p, o in starts.items() if p not in have})
        return RegisteredModel(registration, names, values.get(HighestClock.key(registration.id)), built)

    def check(self, compiled: Compiled) -> None:
        """Raises Fatal if `open` would refuse this read model. Writes nothing."""
        values = self.state.load(_CHECK_MAX_AGE)
        registration = values.registration(compiled.name)
        if registration is None:
            return
        self.check_unbroken(registration, _CHECK_MAX_AGE)
        self.check_clock(registration, _CHECK_MAX_AGE)
        self.check_topics(registration)
        if values.get(BuiltSinks.key(registration.id)):
            check_hash(registration, compiled, _tables(values, registration))

    # -- the stream of all changes -------------------------------------------------------------------

    def stream(self, max_age: float = 0.0) -> Stream:
        """Returns what is known of the connector's stream of changes."""
        return self.state.load(max_age).get(self._stream_key) or Stream()

    def record_slot(self, stream: Stream, slot: str) -> None:
        """Records that this replication slot exists. If it is missing later, changes were lost."""
        self.state.save(self._stream_key, replace(stream, slot=slot))

    @property
    def _stream_key(self) -> Key[Stream]:
        return Stream.key(self.config.kafka.topic_prefix)

    def broken(self, why: str, known: Stream, *, slot: str = "") -> Stream:
        """Records that changes were lost. This stops every read model that began before, in every process.

        known: the stream that broke. Does nothing if another break was recorded since.
        slot: the replication slot that exists now.
        Returns the current stream.
        """
        now = self.stream()
        if now.number == known.number:
            now = Stream(now.number + 1, why, time.time_ns() // 1_000_000, slot)
            self.state.save(self._stream_key, now)
        return now

    def check_unbroken(self, registration: Registration, max_age: float = 0.0) -> None:
        """Raises Fatal if changes were lost since the read model began."""
        stream = self.stream(max_age)
        if registration.stream < stream.number:
            raise Fatal(
                "changes were lost between PostgreSQL and Kafka",
                where=registration.model,
                why=stream.why,
                hint=f"syncer resync {registration.model}"
                if stream.slot
                else f"syncer connectors reset, then: syncer resync {registration.model}",
            )

    def record_backwards(self, registration: Registration, why: str) -> None:
        """Records that the clock of this epoch ran backwards. This stops the read model in every process."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.state.save(ClockRanBackwards.key(registration.id), ClockRanBackwards(f"{why}, detected {at}"))

    def record_weak(self, generation: Generation, *, always: bool) -> None:
        """Records that a replica identity is too weak, so that changes lack old values.

        Once it is strong enough, all documents are rendered again (`monitors/table_alterations.py`).

        always: record it even if an earlier record is still unhandled. Another process may be handling that one now.
        """
        values, key = self.state.load(), WeakIdentity.key(generation)
        basis, recorded = values.get(RenderBasis.key(generation)), values.get(key)
        handled = basis.state.get("weak", "") if basis else ""
        if always or (recorded.token if recorded else "") == handled:
            self.state.save(key, WeakIdentity(str(time.time_ns())))

    def check_clock(self, registration: Registration, max_age: float = 0.0) -> None:
        """Raises Fatal if any process saw the clock of this epoch run backwards.

        The clock may have caught up since. But the sinks hold documents from commits that the server has lost.
        """
        found = self.state.load(max_age).get(ClockRanBackwards.key(registration.id))
        if found:
            raise ran_backwards(registration.model, found.why)

    def check_topics(self, registration: Registration) -> None:
        """Raises Fatal if a topic was deleted and created again. Its offsets alone may look as if nothing was lost."""
        for topic, id in self.backend.ids(list(registration.topics)).items():
            if id != registration.topics[topic]:
                raise Fatal(
                    "a topic was deleted and created again: its records are lost",
                    where=f"topic {topic}",
                    why=f"its id was {registration.topics[topic]} and is now {id}",
                    hint=f"syncer resync {registration.model}",
                )

    # -- registration ----------------------------------------------------------------------------------

    def record_built(self, registration: Registration) -> None:
        """Records that the targets of the sinks exist."""
        self.state.save(BuiltSinks.key(registration.id), BuiltSinks())

    def announce_swap(self, leaving: Registration, following: Registration) -> None:
        """Records that readers are about to be switched to a generation.

        Refreshes of earlier generations fail from then on, in every process.
        """
        self.state.save(SwapAnnounced.key(following.id), SwapAnnounced(leaving.generation, time.time_ns() // 1_000_000))

    def withdraw_swap(self, following: Registration) -> None:
        """Removes the announcement of a switch that will not happen. Those of other resyncs stay."""
        self.state.save(SwapAnnounced.key(following.id), None)

    def adopt(self, registration: Registration) -> None:
        """Makes the generation that a resync has built the active one, unless a later one is active."""
        self.state.save(Activated.key(registration.id), Activated(time.time_ns() // 1_000_000))

    def register(
        self,
        compiled: Compiled,
        names: Names,
        *,
        epoch: int,
        generation: int,
        slot: StateSlot = StateSlot.ACTIVE,
    ) -> Registration:
        """Records where the read model begins.

        It begins ten minutes ago, or when the oldest open transaction began, if that is earlier. So a transaction that
        was committed but not yet visible to the backfill arrives as events. Partitions without a record since then
        begin at their end.
        """
        self._create(names)
        ends = self.changes.ends(names.changes)  # before `back`: −1 there then means no record before these ends
        with connect(self.config.postgres.arguments()) as connection:
            row: Any = connection.execute(_BEGINNING).fetchone()
        oldest, snapshot, snapshot_ms = row
        stream = self.stream().number
        ids = self.backend.ids([*names.changes, *names.work_topics])
        now = time.time_ns() // 1_000_000
        since = min(now - _LOOK_BACK_MS, oldest or now)
        back = self.changes.ends(names.changes, at_ms=since)
        starts: dict[str, dict[str, int]] = {}
        for (topic, partition), end in ends.items():
            offset = back.get((topic, partition), -1)
            starts.setdefault(topic, {})[str(partition)] = min(offset, end) if offset >= 0 else end
        registration = Registration(
            compiled.name, compiled.hash, epoch, generation, starts, now, stream, ids, snapshot, snapshot_ms
        )
        if slot is StateSlot.ACTIVE:
            self.adopt(registration)
        self.state.save(Registration.key(registration.id), registration)
        return registration

    def _create(self, names: Names) -> None:
        made = self.changes.create(names.changes)
        for queue in self.queues(names):
            queue.create()
        self.backend.dead_letters(names.dead_letters).create()
        self.changes.require_uncompacted(set(names.changes) - set(made))


def superseded(model: str) -> Fatal:
    """Returns the error of a resync that was frozen while another one completed."""
    return Fatal(
        "this resync is obsolete",
        where=model,
        why="another resync has switched readers to a generation of its own meanwhile",
        hint="run one resync of a read model at a time",
    )


def check_hash(registration: Registration, compiled: Compiled, tables: TableState) -> None:
    """Raises Fatal if the documents were rendered from another declaration, or their ids from other key types.

    tables: as they were recorded. Empty if they were not.
    """
    if registration.hash == compiled.hash:
        return
    columns = tables.get("tables", {}).get(str(compiled.root), {}).get("columns", {})
    key = [
        f"the key {compiled.root}.{name} was {columns[name]['type_name']} and is now {now}"
        for name, now in zip(compiled.key, compiled.key_types, strict=True)
        if tables.get("form") == FORM and name in columns and _family(columns[name]["type_name"]) in KEYABLE - {now}
    ]
    why = "its file or the primary key of its root table was changed"
    if form_of(registration.hash) != form_of(compiled.hash):
        why = "another version of the syncer registered it, so the declarations cannot be compared"
    elif key:
        why = "; ".join(key)
    raise Fatal(
        "the read model was changed since its documents were rendered",
        where=compiled.name,
        why=f"{why} (hash was {registration.hash}, is now {compiled.hash})",
        hint=f"syncer resync {compiled.name}",
    )


def _family(type: str) -> str:
    """Returns the family of a type without its modifier: `timestamp(3) with time zone` has that of
    `timestamp with time zone`."""
    return family(re.sub(r"\([\d, ]+\)", "", type))


def _tables(values: StateSnapshot, registration: Registration) -> TableState:
    """Returns the tables that the documents were rendered from. Empty if they were not recorded."""
    basis = values.get(RenderBasis.key(registration.id))
    return basis.state if basis else {}
