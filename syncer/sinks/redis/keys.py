"""Names of the keys of a Redis read model. A document and its version have to be in the same slot. No I/O.

The text between the first `{` and the next `}` of a key chooses its slot. Without such a text the whole key does.
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

from __future__ import annotations

import functools
import re

from redis.crc import key_slot

PLACEHOLDER = "{id}"
_SLOTS, _MARK_EVERY = 16384, 256
_GLOB = re.compile(r"[\\*?\[\]^-]")


def pattern_problem(pattern: str) -> str:
    """Returns the mistake in a key pattern, or an empty text."""
    if pattern.count(PLACEHOLDER) != 1:
        return f"a key pattern has {PLACEHOLDER} in it exactly once, such as customer:{PLACEHOLDER}:summary"
    prefix = pattern.partition(PLACEHOLDER)[0]
    if not prefix:
        return f"a key pattern begins with a text of its own, such as customer:{PLACEHOLDER}:summary"
    if prefix.startswith("syncer:") or "syncer:".startswith(prefix):
        return "keys that begin with syncer: are reserved for the syncer"
    return ""


class Keys:
    """The two keys of an id, the id of a key, and the syncer's own keys for a pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._prefix, _, self._suffix = pattern.partition(PLACEHOLDER)
        self.owner = f"{len(self._prefix)}.{len(self._suffix)}"
        """Distinguishes this pattern from every other pattern that has a key in common with it."""
        # No document's key can begin like this, so a version key never equals a document's key.
        self._mark = "version:" if self._prefix[0] != "v" else "~version:"
        self.meta = f"syncer:meta:{pattern}"
        """The key that records which read model the documents belong to."""

    @property
    def taken_hint(self) -> str:
        """The advice when the keys belong to another read model."""
        return f"choose another key; if that read model no longer exists: redis-cli DEL '{self.meta}'"

    def document(self, id: str) -> str:
        return f"{self._prefix}{id}{self._suffix}"

    def version(self, key: str) -> str:
        """Returns the version key of a document's key. It is in the same slot and unique to the document."""
        if "}" not in key:
            return f"{self._mark}{{{key}}}"
        _, opened, rest = key.partition("{")
        tag, closed, _ = rest.partition("}")
        if opened and closed and tag:
            return f"{self._mark}:{key}"
        return f"{self._mark}#{{{_tag_of_slot(slot(key))}}}{key}"

    def is_document(self, text: bytes) -> bool:
        """Returns whether this text of a version key means that a document of this pattern exists."""
        return text.endswith(f" {self.owner}".encode())

    def version_in(self, text: bytes) -> int | None:
        """Returns the version in the text of a version key, of a document or a delete.

        Returns None if the key belongs to another pattern or to the application."""
        digits, _, rest = text.partition(b" ")
        if digits.isdigit() and rest in (self.owner.encode(), f"{self.owner} deleted".encode()):
            return int(digits)
        return None

    def id(self, key: bytes) -> str | None:
        """Returns the id in a document's key, or None if the key does not match the pattern."""
        try:
            text = key.decode()
        except UnicodeDecodeError:
            return None
        inner = len(text) - len(self._prefix) - len(self._suffix)
        if inner <= 0 or not text.startswith(self._prefix) or not text.endswith(self._suffix):
            return None
        return text[len(self._prefix) : len(self._prefix) + inner]

    def marks(self, cluster: bool) -> list[str]:
        """Returns keys whose loss shows that their server was emptied.

        On a cluster there is one in every 256th slot, so each primary with 256 slots in a row has one."""
        slots = range(0, _SLOTS, _MARK_EVERY) if cluster else [0]
        return [f"syncer:mark:{{{_tag_of_slot(number)}}}:{self._pattern}" for number in slots]

    @property
    def glob(self) -> str:
        """The pattern for SCAN. It matches all documents and may match other keys, which `id` rejects."""
        return _GLOB.sub(r"\\\g<0>", self._prefix) + "*" + _GLOB.sub(r"\\\g<0>", self._suffix)


def slot(key: str) -> int:
    return key_slot(key.encode())


@functools.cache
def _tag_of_slot(wanted: int) -> int:
    """Returns a number whose text is in this slot. It is for keys that no tag can repeat, such as `a}b`."""
    number = 0
    while key_slot(b"%d" % number) != wanted:
        number += 1
    return number
