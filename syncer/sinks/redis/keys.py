"""The keys of a Redis read model: of a document, and of its version, which has to be in the same slot.

No I/O. A slot is chosen by the text between the first `{` and the first `}` after it, if there is any,
otherwise by the whole key: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

from __future__ import annotations

import functools
import re

from redis.crc import key_slot

PLACEHOLDER = "{id}"
_SLOTS, _MARK_EVERY = 16384, 256
_GLOB = re.compile(r"[\\*?\[\]^-]")


def pattern_problem(pattern: str) -> str:
    """What is wrong with a key pattern; empty when nothing is."""
    if pattern.count(PLACEHOLDER) != 1:
        return f"a key pattern has {PLACEHOLDER} in it exactly once, such as customer:{PLACEHOLDER}:summary"
    prefix = pattern.partition(PLACEHOLDER)[0]
    if not prefix:
        return f"a key pattern begins with a text of its own, such as customer:{PLACEHOLDER}:summary"
    if prefix.startswith("syncer:") or "syncer:".startswith(prefix):
        return "keys that begin with syncer: are ours"
    return ""


class Keys:
    """Both keys of an id, and the id of a key."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._prefix, _, self._suffix = pattern.partition(PLACEHOLDER)
        self.owner = f"{len(self._prefix)}.{len(self._suffix)}"
        """Tells this pattern from every other that has a key in common with it."""
        # No document's key can begin like this, so that the two kinds never meet.
        self._mark = "version:" if self._prefix[0] != "v" else "~version:"

    def document(self, id: str) -> str:
        return f"{self._prefix}{id}{self._suffix}"

    def version(self, key: str) -> str:
        """The version key of a document's key: another name in the same slot, and of no other document."""
        if "}" not in key:
            return f"{self._mark}{{{key}}}"
        _, opened, rest = key.partition("{")
        tag, closed, _ = rest.partition("}")
        if opened and closed and tag:
            return f"{self._mark}:{key}"
        return f"{self._mark}#{{{_tag_of_slot(slot(key))}}}{key}"

    def ours(self, mark: bytes) -> bool:
        """Whether a version key with this text says that its document is there and of this pattern."""
        return mark.endswith(f" {self.owner}".encode())

    def id(self, key: bytes) -> str | None:
        """The id in a document's key; None for a key that is none."""
        try:
            text = key.decode()
        except UnicodeDecodeError:
            return None
        inner = len(text) - len(self._prefix) - len(self._suffix)
        if inner <= 0 or not text.startswith(self._prefix) or not text.endswith(self._suffix):
            return None
        return text[len(self._prefix) : len(self._prefix) + inner]

    def marks(self, cluster: bool) -> list[str]:
        """Keys that show by being there that their server was not emptied. On a cluster one in every 256th
        slot: each primary that has so many in a row has one."""
        slots = range(0, _SLOTS, _MARK_EVERY) if cluster else [0]
        return [f"syncer:mark:{{{_tag_of_slot(number)}}}:{self._pattern}" for number in slots]

    @property
    def glob(self) -> str:
        """For SCAN: matches all documents, and perhaps more (`id` tells)."""
        return _GLOB.sub(r"\\\g<0>", self._prefix) + "*" + _GLOB.sub(r"\\\g<0>", self._suffix)


def slot(key: str) -> int:
    return key_slot(key.encode())


@functools.cache
def _tag_of_slot(wanted: int) -> int:
    """A number whose text falls into this slot; for the few keys that no tag can repeat, such as `a}b`."""
    number = 0
    while key_slot(b"%d" % number) != wanted:
        number += 1
    return number
