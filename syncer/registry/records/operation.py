"""Defines the records of long operations on a generation: resync, render of all documents, backfill, verify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from syncer.registry.records.form import GenerationRecord, Value, decode_offsets, encode_offsets


@dataclass(frozen=True, slots=True)
class SwapAnnounced(GenerationRecord):
    """A resync is about to switch readers to this generation.

    From then on, a document that is fresh in an earlier generation may not be the one that applications read. The
    record stays, because nothing returns to an earlier generation. A resync that gives up before the switch removes it.
    """

    KIND = "swap"
    leaving: int
    """The generation that applications read before."""
    at_ms: int
    """Since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Rerender(GenerationRecord):
    """The last time that all documents were handed out to be rendered again (`monitors/rerender.py`)."""

    KIND = "refresh"
    why: str
    at_ms: int
    """Since the Unix epoch."""
    ends: Mapping[int, int]
    """Partition of the work queue → the offset after the last item."""

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(**{**value, "ends": decode_offsets(value["ends"])})

    def encode(self) -> Value:
        return {**asdict(self), "ends": encode_offsets(self.ends)}


@dataclass(frozen=True, slots=True)
class BackfillRun(GenerationRecord):
    """A backfill, and the ranges that it handed out."""

    KIND = "backfill"
    run: str
    planned: bool
    """All its items are in the backfill queue."""
    items: int
    roots: int
    """The number of documents, or of partials: see `unit`."""
    started_ms: int
    begins: Mapping[int, int] = field(default_factory=dict)
    """Partition of the backfill queue → the offset of its first item."""
    ends: Mapping[int, int] = field(default_factory=dict)
    """Partition of the backfill queue → the offset after its last item."""
    finished_ms: int = 0
    complete: bool = False
    """Whether this backfill, or an earlier one of the generation, has finished."""
    letters: int = 0
    """The end of the dead letters when the backfill began. Letters from this offset on are its own."""
    unit: str = "document"
    """What the backfill renders: `document`, or `partial` if documents are combined from partials."""

    @property
    def records(self) -> int:
        return sum(self.ends.values()) - sum(self.begins.values())

    @classmethod
    def decode(cls, value: Value) -> Self:
        offsets = {name: decode_offsets(value[name]) for name in ("begins", "ends") if name in value}
        return cls(**{**value, **offsets})

    def encode(self) -> Value:
        return {**asdict(self), "begins": encode_offsets(self.begins), "ends": encode_offsets(self.ends)}


@dataclass(frozen=True, slots=True)
class BuildReport(GenerationRecord):
    """The process that builds the generation was alive. It renews the record every few seconds."""

    KIND = "building"
    at_ms: int
    """Since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Verification(GenerationRecord):
    """The result of the last `syncer verify`, over all sinks of the read model."""

    KIND = "verified"
    started_ms: int
    """When the comparison began, milliseconds since the Unix epoch. Later changes may be missing in it."""
    documents: int
    """Number of compared documents. A document that is in two sinks counts twice."""
    differences: int
    """Number of documents that were wrong at the end, after a repair if there was one."""
