"""The position of a client in a documents topic: the id of an event, and the value of `Last-Event-ID`.

    1 byte    format, 1
    8 bytes   hash of the topic's id
    varint    a time, in seconds since the Unix epoch: everything after the position was written later
    varint    the next offset of partition 0, of partition 1, …

The bytes are base64url text, so that they fit into a header and into a URL. 4 partitions take about 30 characters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_FORMAT = 1
_HASH = 8
_MAX_LENGTH = 8192
"""Characters. A header must not be longer, either."""
_MAX_NUMBER = 1 << 63


@dataclass(frozen=True, slots=True)
class Cursor:
    """topic: of `hash_of`. at: seconds. offsets: the next one of each partition, in order."""

    topic: bytes
    at: int
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, topic: bytes, at: float, offsets: Mapping[int, int]) -> Cursor:
        """Returns the cursor of a position. offsets: of all partitions, which are numbered from 0."""
        return cls(topic, max(0, int(at)), tuple(offsets[number] for number in range(len(offsets))))

    def encode(self) -> str:
        numbers = b"".join(_varint(number) for number in (self.at, *self.offsets))
        return base64.urlsafe_b64encode(bytes([_FORMAT]) + self.topic + numbers).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Returns the cursor of a text. Raises ValueError unless `encode` made the text."""
        if len(text) > _MAX_LENGTH or not text.isascii():
            raise ValueError("it is too long, or not ASCII")
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error as error:
            raise ValueError("it is not base64url") from error
        if len(data) <= _HASH or data[0] != _FORMAT:
            raise ValueError("it has another format")
        numbers = tuple(_numbers(data[1 + _HASH :]))
        found = cls(data[1 : 1 + _HASH], numbers[0] if numbers else 0, numbers[1:])
        if not found.offsets or found.encode() != text:
            raise ValueError("it is not complete, or has more than an id needs")
        return found


def hash_of(topic_id: str) -> bytes:
    """Returns what a cursor holds of a topic's id."""
    return hashlib.blake2b(topic_id.encode(), digest_size=_HASH).digest()


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0
        elif number >= _MAX_NUMBER:
            raise ValueError("a number is too large")
    if shift:
        raise ValueError("the last number is not complete")
