"""Defines the records of daemons, and of the connector's stream that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from syncer.checks import Reader
from syncer.clock import Identity
from syncer.registry.records.form import Key, PlainRecord, Value, decode_offsets, encode_offsets


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
class ProcessReport(PlainRecord):
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
class Stream(PlainRecord):
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
class Proved(PlainRecord):
    """While this process read the slot, all changes of the transactions before `xmin` were proved to be in Kafka.

    A connector that resumes later can lose changes of other transactions only.
    """

    reader: Reader
    system: int
    timeline: int
    xmin: int
    """A 64-bit transaction id."""

    @property
    def identity(self) -> Identity:
        return Identity(self.system, self.timeline)

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(**{**value, "reader": Reader(**value["reader"])})


@dataclass(frozen=True, slots=True)
class CanaryPosition(PlainRecord):
    """The last canary message that is committed for certain, and the offsets from which it can be found."""

    series: str
    number: int
    stream: int
    """`Stream.number` at that time."""
    start: Mapping[int, int]
    """Partition of the message topic → offset."""
    since_ms: int = 0
    """When the oldest message was committed that had not arrived then."""
    proved: tuple[Proved, ...] = ()
    """For each of the last readers of the slot. The last reader is the last one."""

    @staticmethod
    def key(prefix: str) -> Key[CanaryPosition]:
        return Key(f"~{prefix}/canary", CanaryPosition.decode)

    @classmethod
    def decode(cls, value: Value) -> Self:
        fields = dict(value)
        start = decode_offsets(fields.pop("from", {}))
        proved = tuple(Proved.decode(one) for one in fields.pop("proved", ()))
        return cls(**fields, start=start, proved=proved)

    def encode(self) -> Value:
        fields = asdict(self)
        proved = [one.encode() for one in self.proved]
        return {"from": encode_offsets(fields.pop("start")), **fields, "proved": proved}
