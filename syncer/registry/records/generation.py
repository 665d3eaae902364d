"""Defines the records of a generation: how it began, and what the daemon remembers of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from syncer.checks import Reader
from syncer.checks.table_state import TableState
from syncer.clock import Beginning, Identity, Snapshot
from syncer.ports import DurabilityToken
from syncer.registry.records.daemon import Proved
from syncer.registry.records.form import Generation, GenerationRecord, Value


@dataclass(frozen=True, slots=True)
class Registration(GenerationRecord):
    """How a generation of a read model began. Written before its first event is read.

    Each generation has a key of its own, and the active one is the latest that has `Activated`. So a resync that was
    frozen can never replace a later generation, whenever it writes.
    """

    KIND = "registration"
    model: str
    hash: str
    """Of the declaration that its documents are rendered from."""
    epoch: int
    generation: int
    starts: Mapping[str, Mapping[str, int]]
    """Topic → partition (as text) → the offset at which the read model began."""
    registered_ms: int
    stream: int = 0
    """`Stream.number` at that time. A higher one means that changes were lost since."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """Topic → its id. A topic of the same name with another id does not continue where this one ended."""
    snapshot: str = ""
    """Of PostgreSQL at that time, as PostgreSQL's text."""
    snapshot_ms: int = 0
    """When it was taken, by PostgreSQL's clock."""

    @property
    def id(self) -> Generation:
        return Generation(self.model, self.generation)

    @property
    def beginning(self) -> Beginning | None:
        return Beginning(Snapshot.parse(self.snapshot), self.snapshot_ms) if self.snapshot else None


@dataclass(frozen=True, slots=True)
class Activated(GenerationRecord):
    """Applications read this generation, unless a later one has this record, too. It is never removed."""

    KIND = "active"
    at_ms: int
    """Since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class HighestClock(GenerationRecord):
    """The highest snapshot clock that the generation has seen, and the history of PostgreSQL it belongs to."""

    KIND = "clock"
    system: int
    timeline: int
    clock: int

    @property
    def identity(self) -> Identity:
        return Identity(self.system, self.timeline)


@dataclass(frozen=True, slots=True)
class ClockRanBackwards(GenerationRecord):
    """A process saw the clock of this generation's epoch run backwards."""

    KIND = "backwards"
    why: str


@dataclass(frozen=True, slots=True)
class BuiltSinks(GenerationRecord):
    """The sinks' targets have been built. If one is missing now, it was lost."""

    KIND = "sinks"
    built: bool = True


@dataclass(frozen=True, slots=True)
class DurabilityTokens(GenerationRecord):
    """What the sinks answered last to `ports.Sink.durability`."""

    KIND = "memory"
    tokens: Mapping[str, Iterable[str]]
    """Sink's name → its `DurabilityToken`."""

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls({sink: DurabilityToken(*token) for sink, token in value.items()})

    def encode(self) -> Value:
        return {sink: list(token) for sink, token in self.tokens.items()}


@dataclass(frozen=True, slots=True)
class OpenBreakers(GenerationRecord):
    """The sinks that reject document after document (`pipeline/circuit_breaker.py`)."""

    KIND = "breaker"
    sinks: Mapping[str, Value]

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(value)

    def encode(self) -> Value:
        return self.sinks


@dataclass(frozen=True, slots=True)
class RenderBasis(GenerationRecord):
    """What the documents depend on besides rows: tables, SQL, replica identities."""

    KIND = "shape"
    state: TableState

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(value)

    def encode(self) -> Value:
        return self.state


@dataclass(frozen=True, slots=True)
class HandledTables(GenerationRecord):
    """The fingerprint of the tables when they were compared last. All work that follows from it is durable."""

    KIND = "tables"
    fingerprint: str


@dataclass(frozen=True, slots=True)
class WeakIdentity(GenerationRecord):
    """A replica identity was too weak. Each time has another token."""

    KIND = "weak"
    token: str


@dataclass(frozen=True, slots=True)
class Outgrown(GenerationRecord):
    """Why a resync is due although the read model runs: sinks were built for other types of columns."""

    KIND = "outgrown"
    texts: Sequence[str]
    """One sentence for each field."""
    columns: Sequence[str] = ()
    """The columns that were altered."""

    def describe(self, model: str) -> str:
        """Returns one line for the operator, with the command to run."""
        altered = f"{'; '.join(self.columns)}: " if self.columns else ""
        return f"{altered}{'; '.join(self.texts)} → syncer resync {model}"


@dataclass(frozen=True, slots=True)
class SlotReader(GenerationRecord):
    """The process that reads the connector's slot, as compared last (`monitors/connector_resumes.py`)."""

    KIND = "reader"
    reader: Reader | None
    only_inserts: bool | None
    """Whether that connector can lose only inserted rows when it resumes. None if it is not known."""
    proved: Proved | None = None
    """What the last repair relied on. It still holds, so the next repair can rely on it if there is nothing newer."""

    @classmethod
    def decode(cls, value: Value) -> Self:
        reader, proved = value["reader"], value.get("proved")
        return cls(
            Reader(**reader) if reader else None, value["only_inserts"], Proved.decode(proved) if proved else None
        )
