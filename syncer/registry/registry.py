"""Begins a read model, once: topics, starting offsets, registration; and refuses a changed one.

The order matters. Where a read model began is written down before its first event is read and before its
backfill takes a snapshot; so what the backfill does not show comes as an event.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from syncer.checks.table_state import FORM, TableState
from syncer.clock import ran_backwards
from syncer.config.schema import Config
from syncer.declaration.compile import Compiled, form_of
from syncer.declaration.sql_types import KEYABLE, family
from syncer.errors import Fatal
from syncer.events import TableName
from syncer.kafka.admin import MAX_BYTES, KafkaAdmin, topic_of
from syncer.kafka.dead_letters import CONFIG as LETTERS
from syncer.kafka.producer import KafkaProducer
from syncer.kafka.state_store import Registration, StateStore, Stream
from syncer.postgres.session import connect

_LOOK_BACK_MS = 600_000
_LATELY = 60.0  # seconds: one reading of the state does for all that `check` looks at
_BEGINNING = """
SELECT (extract(epoch FROM min(began)) * 1000)::bigint, pg_catalog.pg_current_snapshot()::text,
       (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint
  FROM (SELECT xact_start FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL
         UNION ALL SELECT prepared FROM pg_catalog.pg_prepared_xacts) AS open (began)"""


@dataclass(frozen=True, slots=True)
class Names:
    """What belongs to one generation of a read model in Kafka."""

    changes: tuple[str, ...]
    """Its tables' change topics, each once: two tables can have the same one."""
    group: str
    work_topic: str
    work_group: str
    backfill_topic: str
    """Its ranges have a topic of their own, so that a fan-out does not wait for hours of them."""
    backfill_group: str
    dead_letters: str

    @classmethod
    def make(cls, config: Config, model: str, tables: Iterable[TableName], generation: int) -> Names:
        unit = f"{config.kafka.group_prefix}.{model}.{generation}"
        changes = sorted({topic_of(config.kafka.topic_prefix, table) for table in tables})
        letters = f"{config.kafka.group_prefix}.{model}.dlq"
        work, backfill = f"{unit}.work", f"{unit}.backfill"
        return cls(tuple(changes), unit, work, work, backfill, backfill, letters)


class RegisteredModel(NamedTuple):
    """A read model that is registered, and what else is written down of it."""

    registration: Registration
    names: Names
    clock: Mapping[str, Any]
    """History and highest clock seen in this epoch; empty if none was."""
    built: bool
    """Its sinks have been made: what is missing of them now is lost."""


class Registry:
    """All that the syncer keeps in Kafka, for one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings: dict[str, Any] = {
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "client.id": "syncer",
            "log_level": 2,  # its own lines are no log entries of ours, and what matters comes as an error
            **config.kafka.properties,
        }
        self.topics = KafkaAdmin(
            self.settings,
            partitions=config.kafka.partitions,
            replication_factor=config.kafka.replication_factor,
        )
        self.writing = KafkaProducer(self.settings)
        self.state = StateStore(self.topics, self.writing, config.kafka.state_topic)

    def registered(self, model: str, *, building: bool = False, max_age: float = 0.0) -> dict[str, Any]:
        """The registration that is in force, or the one that a resync is building; empty if there is none."""
        return self.state.load(max_age).get(_key(model, building), {})

    def open(self, compiled: Compiled, *, building: bool = False) -> RegisteredModel:
        """Register the read model if it is new. building: the generation that a resync is building.

        Raises Fatal when its documents were rendered from another declaration, or columns of other types.
        """
        values = self.state.load()
        known = values.get(_key(compiled.name, building))
        if known:
            self.check_unbroken(Registration(**known))
            self.check_clock(Registration(**known))
        names = Names.make(self.config, compiled.name, compiled.tables, known["generation"] if known else 1)
        self._create(names)
        if known:
            registration = Registration(**known)
            self.check_topics(registration)
        else:
            registration = self.register(compiled, names, epoch=1, generation=1, building=building)
        built = bool(values.get(registration.key("sinks")))
        if registration.hash != compiled.hash and not built:
            # Nothing was made of the earlier declaration; where it began holds for this one, too.
            registration = replace(registration, hash=compiled.hash)
            self.state.save(_key(compiled.name, building), registration)
        check_hash(registration, compiled, values.get(registration.key("shape"), {}))
        starts = {(t, int(p)): o for t, all_ in registration.starts.items() for p, o in all_.items()}
        have = self.topics.committed(names.group)
        self.topics.commit(names.group, {p: o for p, o in starts.items() if p not in have})
        clock = values.get(registration.key("clock"), {})
        return RegisteredModel(registration, names, clock, built)

    def check(self, compiled: Compiled) -> None:
        """Raises Fatal when `open` would refuse a read model that is registered. Nothing is written."""
        values = self.state.load(_LATELY)
        registration = Registration(**values[compiled.name])
        self.check_unbroken(registration, _LATELY)
        self.check_clock(registration, _LATELY)
        self.check_topics(registration)
        if values.get(registration.key("sinks")):
            check_hash(registration, compiled, values.get(registration.key("shape"), {}))

    # -- the stream of changes as a whole -------------------------------------------------------------

    @property
    def stream_key(self) -> str:
        return f"~{self.config.kafka.topic_prefix}"

    def stream(self, max_age: float = 0.0) -> Stream:
        return Stream(**self.state.load(max_age).get(self.stream_key, {}))

    def broken(self, why: str, known: Stream, *, slot: str = "") -> Stream:
        """Write down that changes were lost on their way, so that every read model that began before is
        stopped, in every process. known: the stream that broke; one that is followed by another already
        stays as it is. slot: the one that is there now."""
        now = self.stream()
        if now.number == known.number:
            now = Stream(now.number + 1, why, time.time_ns() // 1_000_000, slot)
            self.state.save(self.stream_key, now)
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
        self.state.save(registration.key("backwards"), {"why": f"{why}, noticed {at}"})

    def note_weak(self, model: str, generation: int, *, always: bool) -> None:
        """Write down that a replica identity is too weak, so that changes lack old values. As soon as it no
        longer is, all documents are rendered again (`monitors/table_alterations.py`).

        always: also if an earlier note is not answered yet, because somebody may be about to answer it.
        """
        values, key = self.state.load(), f"{model}/{generation}/weak"
        answered = values.get(f"{model}/{generation}/shape", {}).get("weak", "")
        if always or values.get(key, {}).get("token", "") == answered:
            self.state.save(key, {"token": str(time.time_ns())})

    def check_clock(self, registration: Registration, max_age: float = 0.0) -> None:
        """Raises Fatal if the clock of its epoch was ever seen to run backwards. It may have caught up since,
        but there are documents of what the server has lost."""
        found = self.state.load(max_age).get(registration.key("backwards"))
        if found:
            raise ran_backwards(registration.model, found["why"])

    def check_topics(self, registration: Registration) -> None:
        """Raises Fatal if a topic was deleted and made again: its offsets may look as if nothing was lost."""
        for topic, id in self.topics.ids(list(registration.topics)).items():
            if id != registration.topics[topic]:
                raise Fatal(
                    "a topic was deleted and made again: what it held is lost",
                    where=f"topic {topic}",
                    why=f"its id was {registration.topics[topic]}, and is {id}",
                    hint=f"syncer resync {registration.model}",
                )

    # -- the beginning ---------------------------------------------------------------------------------

    def note_built(self, registration: Registration) -> None:
        self.state.save(registration.key("sinks"), {"built": True})

    def adopt(self, registration: Registration) -> None:
        """A resync has built this generation and it is read: from now on it is the one in force."""
        self.state.save(registration.model, registration)
        self.state.save(_key(registration.model, True), {})

    def register(
        self, compiled: Compiled, names: Names, *, epoch: int, generation: int, building: bool = False
    ) -> Registration:
        """Write down where the read model begins: ten minutes or the oldest open transaction back, so that
        what was committed but not yet visible is seen as an event; the ends where that has no answer."""
        self._create(names)
        ends = self.topics.ends(names.changes)  # first: −1 below then means that nothing came before these
        with connect(self.config.postgres.arguments()) as connection:
            row: Any = connection.execute(_BEGINNING).fetchone()
        oldest, snapshot, snapshot_ms = row
        stream = self.stream().number
        ids = self.topics.ids([*names.changes, names.work_topic, names.backfill_topic])
        now = time.time_ns() // 1_000_000
        since = min(now - _LOOK_BACK_MS, oldest or now)
        back = self.topics.ends(names.changes, at_ms=since)
        starts: dict[str, dict[str, int]] = {}
        for (topic, partition), end in ends.items():
            offset = back.get((topic, partition), -1)
            starts.setdefault(topic, {})[str(partition)] = min(offset, end) if offset >= 0 else end
        registration = Registration(
            compiled.name, compiled.hash, epoch, generation, starts, now, stream, ids, snapshot, snapshot_ms
        )
        self.state.save(_key(compiled.name, building), registration)
        return registration

    def _create(self, names: Names) -> None:
        week, large = {"retention.ms": str(7 * 24 * 3600 * 1000)}, {"max.message.bytes": str(MAX_BYTES)}
        made = self.topics.create(names.changes, week | large)
        self.topics.create([names.work_topic, names.backfill_topic], week | large)
        self._create_letters(names.dead_letters)
        for topic in set(names.changes) - set(made):
            policy = self.topics.config(topic, "cleanup.policy") or ""
            if "compact" in policy:
                raise Fatal(
                    "a compacted topic loses the before-images of changes",
                    where=f"topic {topic}",
                    why=f"cleanup.policy={policy}",
                    hint=f"kafka-configs.sh --bootstrap-server {self.config.kafka.bootstrap_servers} --alter "
                    f"--topic {topic} --add-config cleanup.policy=delete",
                )

    def _create_letters(self, topic: str) -> None:
        made = self.topics.create([topic], LETTERS, partitions=1)
        if not made and self.topics.config(topic, "cleanup.policy") != LETTERS["cleanup.policy"]:
            self.topics.configure(topic, LETTERS)


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


def told_outgrown(noted: Mapping[str, Any], model: str) -> str:
    """Why a resync is due, from what `TableAlterations.outgrown` has noted; empty if none is."""
    if not noted.get("texts"):
        return ""
    altered = f"{'; '.join(noted['columns'])}: " if noted.get("columns") else ""
    return f"{altered}{'; '.join(noted['texts'])} → syncer resync {model}"


def _key(model: str, building: bool) -> str:
    return f"{model}/next" if building else model
