"""The records of the state store: one dataclass for each kind, with its key and its JSON form.

Keys, the dataclass, and the process that writes the record:

    MODEL              active `Registration`                                     registering, resync
    MODEL/next         `Registration` of the generation that a resync builds     resync
    MODEL/N/clock      `HighestClock` of generation N                            the daemon
    MODEL/N/backwards  `ClockRanBackwards`: only a resync ends that              the process that detected it
    MODEL/N/sinks      `BuiltSinks`                                              the daemon
    MODEL/N/memory     `DurabilityTokens` of its sinks                           the daemon
    MODEL/N/breaker    `OpenBreakers` of its sinks                               the daemon, backfill
    MODEL/N/shape      `RenderBasis` of its documents                            the daemon
    MODEL/N/weak       `WeakIdentity`                                            the process that detected it
    MODEL/N/outgrown   `Outgrown`: why a resync is due                           the daemon
    MODEL/N/reader     `SlotReader`: as compared last                            the daemon
    MODEL/N/refresh    `Rerender`: all documents were rendered again             the daemon
    MODEL/N/backfill   `BackfillRun`: under way or done last                     backfill
    MODEL/process/ID   `ProcessReport` of one daemon                             that daemon
    ~PREFIX            `Stream` of the connector with this topic.prefix          the daemon, connectors
    ~PREFIX/canary     `CanaryPosition`                                          the daemon

No other module builds or splits a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from syncer.checks import Reader
from syncer.checks.table_state import TableState
from syncer.clock import Beginning, Identity, Snapshot
from syncer.ports import DurabilityToken

Value = Mapping[str, Any]
"""A JSON object."""


class StateSlot(Enum):
    """Which registration of a read model is meant."""

    ACTIVE = "active"
    """The generation that applications read."""
    NEXT = "next"
    """The generation that a resync builds."""


class Generation(NamedTuple):
    """One generation of a read model."""

    model: str
    number: int


class StateRecord(Protocol):
    def encode(self) -> Value:
        """Returns the record as a JSON object, without its key."""
        ...


R = TypeVar("R", bound=StateRecord)


@dataclass(frozen=True, slots=True)
class Key(Generic[R]):
    """The key of one record in the state store."""

    text: str
    decode: Callable[[Value], R]


@dataclass(frozen=True, slots=True)
class _Plain:
    """A record whose fields are those of its JSON object."""

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(**value)

    def encode(self) -> Value:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _OfGeneration(_Plain):
    """A record of one generation."""

    KIND: ClassVar[str]

    @classmethod
    def key(cls, generation: Generation) -> Key[Self]:
        return Key(f"{generation.model}/{generation.number}/{cls.KIND}", cls.decode)


@dataclass(frozen=True, slots=True)
class Registration(_Plain):
    """How a read model began. Written before its first event is read."""

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

    @staticmethod
    def key(model: str, slot: StateSlot = StateSlot.ACTIVE) -> Key[Registration]:
        return Key(model if slot is StateSlot.ACTIVE else f"{model}/next", Registration.decode)

    @property
    def id(self) -> Generation:
        return Generation(self.model, self.generation)

    @property
    def beginning(self) -> Beginning | None:
        return Beginning(Snapshot.parse(self.snapshot), self.snapshot_ms) if self.snapshot else None


@dataclass(frozen=True, slots=True)
class HighestClock(_OfGeneration):
    """The highest snapshot clock that the generation has seen, and the history of PostgreSQL it belongs to."""

    KIND = "clock"
    system: int
    timeline: int
    clock: int

    @property
    def identity(self) -> Identity:
        return Identity(self.system, self.timeline)


@dataclass(frozen=True, slots=True)
class ClockRanBackwards(_OfGeneration):
    """A process saw the clock of this generation's epoch run backwards."""

    KIND = "backwards"
    why: str


@dataclass(frozen=True, slots=True)
class BuiltSinks(_OfGeneration):
    """The sinks' targets have been built. If one is missing now, it was lost."""

    KIND = "sinks"
    built: bool = True


@dataclass(frozen=True, slots=True)
class DurabilityTokens(_OfGeneration):
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
class OpenBreakers(_OfGeneration):
    """The sinks that reject document after document (`pipeline/circuit_breaker.py`)."""

    KIND = "breaker"
    sinks: Mapping[str, Value]

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(value)

    def encode(self) -> Value:
        return self.sinks


@dataclass(frozen=True, slots=True)
class RenderBasis(_OfGeneration):
    """What the documents depend on besides rows: tables, SQL, replica identities."""

    KIND = "shape"
    state: TableState

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(value)

    def encode(self) -> Value:
        return self.state


@dataclass(frozen=True, slots=True)
class WeakIdentity(_OfGeneration):
    """A replica identity was too weak. Each time has another token."""

    KIND = "weak"
    token: str


@dataclass(frozen=True, slots=True)
class Outgrown(_OfGeneration):
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
class SlotReader(_OfGeneration):
    """The process that reads the connector's slot, as compared last (`monitors/connector_resumes.py`)."""

    KIND = "reader"
    reader: Reader | None
    sound: bool | None
    """Whether that connector resumes without a loss. None if it is not known."""

    @classmethod
    def decode(cls, value: Value) -> Self:
        reader = value["reader"]
        return cls(Reader(**reader) if reader else None, value["sound"])


@dataclass(frozen=True, slots=True)
class Rerender(_OfGeneration):
    """The last time that all documents were handed out to be rendered again (`monitors/rerender.py`)."""

    KIND = "refresh"
    why: str
    at_ms: int
    """Since the Unix epoch."""
    ends: Mapping[int, int]
    """Partition of the work queue → the offset after the last item."""

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(**{**value, "ends": _offsets(value["ends"])})

    def encode(self) -> Value:
        return {**asdict(self), "ends": _texts(self.ends)}


@dataclass(frozen=True, slots=True)
class BackfillRun(_OfGeneration):
    """A backfill, and the ranges that it handed out."""

    KIND = "backfill"
    run: str
    planned: bool
    """All its items are in the backfill queue."""
    items: int
    roots: int
    started_ms: int
    begins: Mapping[int, int] = field(default_factory=dict)
    """Partition of the backfill queue → the offset of its first item."""
    ends: Mapping[int, int] = field(default_factory=dict)
    """Partition of the backfill queue → the offset after its last item."""
    finished_ms: int = 0
    letters: int = 0
    """The end of the dead letters when the backfill began. Letters from this offset on are its own."""

    @property
    def records(self) -> int:
        return sum(self.ends.values()) - sum(self.begins.values())

    @classmethod
    def decode(cls, value: Value) -> Self:
        offsets = {name: _offsets(value[name]) for name in ("begins", "ends") if name in value}
        return cls(**{**value, **offsets})

    def encode(self) -> Value:
        return {**asdict(self), "begins": _texts(self.begins), "ends": _texts(self.ends)}


@dataclass(frozen=True, slots=True)
class Process:
    """One daemon."""

    id: str
    host: str
    pid: int
    started_ms: int

    def __str__(self) -> str:
        return f"the daemon on {self.host}, pid {self.pid}"


@dataclass(frozen=True, slots=True)
class ProcessReport(_Plain):
    """The last report of one daemon about a read model (`monitors/wait_status.py`)."""

    process: Process
    state: str
    since_ms: int
    """When the state began."""
    reason: str
    at_ms: int
    """When the daemon reported it last."""

    @staticmethod
    def key(model: str, id: str) -> Key[ProcessReport]:
        return Key(f"{model}/process/{id}", ProcessReport.decode)

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(**{**value, "process": Process(**value["process"])})


@dataclass(frozen=True, slots=True)
class Stream(_Plain):
    """What is known of a connector's stream of changes as a whole."""

    number: int = 0
    """How often it was broken. Changes before the last break may never have arrived."""
    why: str = ""
    """How the last break was detected."""
    at_ms: int = 0
    slot: str = ""
    """The replication slot, if a process has seen it since the last break. If it is missing then, that is a break."""

    @staticmethod
    def key(prefix: str) -> Key[Stream]:
        return Key(f"~{prefix}", Stream.decode)


@dataclass(frozen=True, slots=True)
class CanaryPosition(_Plain):
    """The last canary message that is committed for certain, and the offsets from which it can be found."""

    series: str
    number: int
    stream: int
    """`Stream.number` at that time."""
    start: Mapping[int, int]
    """Partition of the message topic → offset."""
    since_ms: int = 0
    """When the oldest message was committed that had not arrived then."""

    @staticmethod
    def key(prefix: str) -> Key[CanaryPosition]:
        return Key(f"~{prefix}/canary", CanaryPosition.decode)

    @classmethod
    def decode(cls, value: Value) -> Self:
        fields = dict(value)
        start = _offsets(fields.pop("from", {}))
        return cls(**fields, start=start)

    def encode(self) -> Value:
        fields = asdict(self)
        return {"from": _texts(fields.pop("start")), **fields}


def model_of(key: str) -> str:
    """Returns the read model if the key is that of an active registration, else an empty text."""
    return "" if "/" in key or key.startswith("~") else key


def is_report_of(key: str, model: str) -> bool:
    """Returns whether the key is that of a `ProcessReport` about this read model."""
    return key.startswith(f"{model}/process/")


def _offsets(texts: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in texts.items()}


def _texts(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in offsets.items()}
