"""A document as a record of Kafka, and back. No I/O.

    key      the document's id
    value    the document as JSON text; none for a delete (a tombstone)
    headers  version        the version, as a decimal number
             model          the read model
             generation     the generation that wrote it
             committed_ms   commit time of the newest change of its batch; missing if the batch has no change event

The record's time is that of the write, by the clock of the syncer's host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import Message

from syncer.document import Batch
from syncer.events import Position

_OVERHEAD = 512
"""Bytes that a record needs in addition to key and value, at most: headers and Kafka's own fields."""

_NUMBERS = frozenset(("version", "generation", "committed_ms"))

Headers = list[tuple[str, bytes]]


class Written(NamedTuple):
    """A record that was read."""

    position: Position
    id: str
    version: int
    """0 if the record has none: the syncer did not write it."""
    body: bytes | None
    """None for a delete."""
    at_ms: int
    generation: int = 0
    """0 if the record has none: the syncer did not write it."""
    committed_ms: int | None = None


def headers(batch: Batch, id: str, model: str, generation: int) -> Headers:
    """Returns the headers of the record of one document."""
    found = {"version": str(batch.version_of(id)), "model": model, "generation": str(generation)}
    if batch.committed_ms:
        found["committed_ms"] = str(batch.committed_ms)
    return [(name, text.encode()) for name, text in found.items()]


def size(id: str, body: bytes | None) -> int:
    """Returns the size of a record in bytes, or a little more."""
    return len(id.encode()) + len(body or b"") + _OVERHEAD


def read(messages: list[Message]) -> Iterator[Written]:
    """Yields the records of messages without an error.

    Kafka rejects records without a key in a compacted topic. An id that is no UTF-8 belongs to no row.
    """
    for message in messages:
        key: Any = message.key()
        id = (key or b"").decode(errors="replace")
        position = Position(message.topic() or "", message.partition() or 0, message.offset() or 0)
        body: Any = message.value()
        numbers = _numbers(message)
        version, generation = numbers.get("version", 0), numbers.get("generation", 0)
        yield Written(position, id, version, body, message.timestamp()[1], generation, numbers.get("committed_ms"))


def _numbers(message: Message) -> dict[str, int]:
    """Returns the headers that are decimal numbers."""
    found: Any = message.headers()
    return {
        name: int(value)
        for name, value in found or ()
        if name in _NUMBERS and value is not None and value.isdigit() and len(value) < 20
    }
