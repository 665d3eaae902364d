"""Begins a read model, once: topics, starting offsets, registration; and refuses a changed one.

The order matters. Where a read model began is written down before its first event is read and before its
backfill takes a snapshot; so what the backfill does not show comes as an event.
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
    BuiltSinks,
    ClockRanBackwards,
    Generation,
    HighestClock,
    Key,
    Registration,
    RenderBasis,
    StateSlot,
    Stream,
    WeakIdentity,
)
from syncer.registry.state import State, StateSnapshot

_LOOK_BACK_MS = 600_000
_LATELY = 60.0  # seconds: one reading of the state does for all that `check` looks at
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
    """All that the syncer keeps outside the sinks, for one configuration."""

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

    def dead_letters(self, model: str) -> DeadLetterStore:
        """Returns the dead letters of all generations of a read model."""
        return self.backend.dead_letters(self.names(model, (), 1).dead_letters)

    def registered(
        self, model: str, slot: StateSlot = StateSlot.ACTIVE, *, max_age: float = 0.0
    ) -> Registration | None:
        """Returns the registration in force, or the one that a resync builds. None if there is none."""
        return self.state.load(max_age).registration(model, slot)

    def open(self, compiled: Compiled, slot: StateSlot = StateSlot.ACTIVE) -> RegisteredModel:
        """Registers the read model if it is new.

        Raises Fatal when its documents were rendered from another declaration, or from columns of other types.
        """
        values = self.state.load()
        registration = values.registration(compiled.name, slot)
        if registration:
            self.check_unbroken(registration)
            self.check_clock(registration)
        names = self.names(compiled.name, compiled.tables, registration.generation if registration else 1)
        self._create(names)
        if registration:
            self.check_topics(registration)
        else:
            registration = self.register(compiled, names, epoch=1, generation=1, slot=slot)
        built = values.get(BuiltSinks.key(registration.id)) is not None
        if registration.hash != compiled.hash and not built:
            # Nothing was rendered from the earlier declaration. Where it began holds for this one, too.
            registration = replace(registration, hash=compiled.hash)
            self.state.save(Registration.key(compiled.name, slot), registration)
        check_hash(registration, compiled, _tables(values, registration))
        starts = {(t, int(p)): o for t, all_ in registration.starts.items() for p, o in all_.items()}
        have = self.changes.committed(names.group)
        self.changes.commit(names.group, {p: o for p, o in starts.items() if p not in have})
        return RegisteredModel(registration, names, values.get(HighestClock.key(registration.id)), built)

    def check(self, compiled: Compiled) -> None:
        """Raises Fatal when `open` would refuse a read model that is registered. Writes nothing."""
        values = self.state.load(_LATELY)
        registration = values.registration(compiled.name)
        if registration is None:
            return
        self.check_unbroken(registration, _LATELY)
        self.check_clock(registration, _LATELY)
        self.check_topics(registration)
        if values.get(BuiltSinks.key(registration.id)):
            check_hash(registration, compiled, _tables(values, registration))

    # -- the stream of changes as a whole -------------------------------------------------------------

    def stream(self, max_age: float = 0.0) -> Stream:
        return self.state.load(max_age).get(self._stream_key) or Stream()

    def note_slot(self, stream: Stream, slot: str) -> None:
        """Records that this replication slot exists. If it is missing later, changes were lost."""
        self.state.save(self._stream_key, replace(stream, slot=slot))

    @property
    def _stream_key(self) -> Key[Stream]:
        return Stream.key(self.config.kafka.topic_prefix)

    def broken(self, why: str, known: Stream, *, slot: str = "") -> Stream:
        """Write down that changes were lost on their way, so that every read model that began before is
        stopped, in every process. known: the stream that broke; one that is followed by another already
        stays as it is. slot: the one that is there now."""
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
                "changes were lost on their way from PostgreSQL to Kafka",
                where=registration.model,
                why=stream.why,
                hint=f"syncer resync {registration.model}"
                if stream.slot
                else f"syncer connectors reset, then: syncer resync {registration.model}",
            )

    def note_backwards(self, registration: Registration, why: str) -> None:
        """That the clock of its epoch ran backwards, for every process and from now on."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.state.save(ClockRanBackwards.key(registration.id), ClockRanBackwards(f"{why}, noticed {at}"))

    def note_weak(self, generation: Generation, *, always: bool) -> None:
        """Write down that a replica identity is too weak, so that changes lack old values. As soon as it no
        longer is, all documents are rendered again (`monitors/table_alterations.py`).

        always: also if an earlier note is not answered yet, because somebody may be about to answer it.
        """
        values, key = self.state.load(), WeakIdentity.key(generation)
        basis, noted = values.get(RenderBasis.key(generation)), values.get(key)
        answered = basis.state.get("weak", "") if basis else ""
        if always or (noted.token if noted else "") == answered:
            self.state.save(key, WeakIdentity(str(time.time_ns())))

    def check_clock(self, registration: Registration, max_age: float = 0.0) -> None:
        """Raises Fatal if the clock of its epoch was ever seen to run backwards. It may have caught up since,
        but there are documents of what the server has lost."""
        found = self.state.load(max_age).get(ClockRanBackwards.key(registration.id))
        if found:
            raise ran_backwards(registration.model, found.why)

    def check_topics(self, registration: Registration) -> None:
        """Raises Fatal if a topic was deleted and made again: its offsets may look as if nothing was lost."""
        for topic, id in self.backend.ids(list(registration.topics)).items():
            if id != registration.topics[topic]:
                raise Fatal(
                    "a topic was deleted and made again: what it held is lost",
                    where=f"topic {topic}",
                    why=f"its id was {registration.topics[topic]}, and is {id}",
                    hint=f"syncer resync {registration.model}",
                )

    # -- the beginning ---------------------------------------------------------------------------------

    def note_built(self, registration: Registration) -> None:
        self.state.save(BuiltSinks.key(registration.id), BuiltSinks())

    def adopt(self, registration: Registration) -> None:
        """A resync has built this generation and it is read: from now on it is the one in force."""
        self.state.save(Registration.key(registration.model), registration)
        self.state.save(Registration.key(registration.model, StateSlot.NEXT), None)

    def register(
        self,
        compiled: Compiled,
        names: Names,
        *,
        epoch: int,
        generation: int,
        slot: StateSlot = StateSlot.ACTIVE,
    ) -> Registration:
        """Write down where the read model begins: ten minutes or the oldest open transaction back, so that
        what was committed but not yet visible is seen as an event; the ends where that has no answer."""
        self._create(names)
        ends = self.changes.ends(names.changes)  # first: −1 below then means that nothing came before these
        with connect(self.config.postgres.arguments()) as connection:
            row: Any = connection.execute(_BEGINNING).fetchone()
        oldest, snapshot, snapshot_ms = row
        stream = self.stream().number
        ids = self.backend.ids([*names.changes, names.work_topic, names.backfill_topic])
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
        self.state.save(Registration.key(compiled.name, slot), registration)
        return registration

    def _create(self, names: Names) -> None:
        made = self.changes.create(names.changes)
        self.work_queue(names).create()
        self.backfill_queue(names).create()
        self.backend.dead_letters(names.dead_letters).create()
        self.changes.require_uncompacted(set(names.changes) - set(made))


def check_hash(registration: Registration, compiled: Compiled, shape: TableState) -> None:
    """Raises Fatal when the documents are not what the declaration gives now, or have other ids.

    shape: of the tables, as it was noted (empty: it was not).
    """
    if registration.hash == compiled.hash:
        return
    columns = shape.get("tables", {}).get(str(compiled.root), {}).get("columns", {})
    key = [
        f"the key {compiled.root}.{name} was {columns[name][3]}, and is {now}"
        for name, now in zip(compiled.key, compiled.key_types, strict=True)
        if shape.get("form") == FORM and name in columns and _family(columns[name][3]) in KEYABLE - {now}
    ]
    why = "its file, or the primary key of its root table"
    if form_of(registration.hash) != form_of(compiled.hash):
        why = "another version of the syncer has registered it, so they cannot be compared"
    elif key:
        why = "; ".join(key)
    raise Fatal(
        "the read model was changed since its documents were rendered",
        where=compiled.name,
        why=f"{why} (hash {registration.hash} then, {compiled.hash} now)",
        hint=f"syncer resync {compiled.name}",
    )


def _family(type: str) -> str:
    """Without its modifier: `timestamp(3) with time zone` is `timestamp with time zone`."""
    return family(re.sub(r"\([\d, ]+\)", "", type))


def _tables(values: StateSnapshot, registration: Registration) -> TableState:
    """Returns the tables that the documents were rendered from. Empty if they were not recorded."""
    basis = values.get(RenderBasis.key(registration.id))
    return basis.state if basis else {}
