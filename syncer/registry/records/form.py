"""Defines the form of all records: their keys, and their JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

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
class PlainRecord:
    """A record whose fields are those of its JSON object."""

    @classmethod
    def decode(cls, value: Value) -> Self:
        return cls(**value)

    def encode(self) -> Value:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GenerationRecord(PlainRecord):
    """A record of one generation."""

    KIND: ClassVar[str]

    @classmethod
    def key(cls, generation: Generation) -> Key[Self]:
        return Key(f"{generation.model}/{generation.number}/{cls.KIND}", cls.decode)


def generation_of(key: str, record: type[GenerationRecord]) -> Generation | None:
    """Returns the generation that a record of this kind is about. None if the key is that of another kind."""
    model, *rest = key.split("/")
    if model.startswith("~") or len(rest) != 2 or rest[1] != record.KIND or not rest[0].isdecimal():
        return None
    return Generation(model, int(rest[0]))


def is_report_of(key: str, model: str) -> bool:
    """Returns whether the key is that of a `ProcessReport` about this read model."""
    return key.startswith(f"{model}/process/")


def decode_offsets(texts: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in texts.items()}


def encode_offsets(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in offsets.items()}
