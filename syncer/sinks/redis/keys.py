"""Names of the keys of a Redis read model. A document and its version have to be in the same slot. No I/O.

The text between the first `{` and the next `}` of a key chooses its slot. Without such a text the whole key does.
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""

from __future__ import annotations

import functools

from redis.crc import key_slot

from syncer.sinks.redis.patterns import ID, PLACEHOLDER, Pattern

INDEXES = "syncer:indexes"
"""The key of a hash: the key pattern of each index of all read models, with its read model (`claims.py`)."""
_SLOTS, _MARK_EVERY = 16384, 256


def pattern_problem(text: str) -> str:
    """Returns the mistake in the key pattern of documents, or an empty text."""
    try:
        pattern = Pattern(text)
    except ValueError as error:
        return str(error)
    if others := [name for name in pattern.names if name != ID]:
        return (
            f"{{{others[0]}}}: only {PLACEHOLDER} can be in the key of a document, because two rows may have the same "
            f"value of another field for a moment; to find documents by a field, add an index: "
            f"indexes: [set: {{key: '…:{{{others[0]}}}'}}]; a literal brace is doubled: {{{{"
        )
    if len(pattern.names) != 1:
        return f"a key pattern must contain {PLACEHOLDER} exactly once, such as customer:{PLACEHOLDER}:summary"
    prefix = pattern.prefix
    if not prefix:
        return f"a key pattern must begin with fixed text, such as customer:{PLACEHOLDER}:summary"
    if prefix.startswith("syncer:") or "syncer:".startswith(prefix):
        return "keys that begin with syncer: are reserved for the syncer"
    return ""


class Keys:
    """The two keys of an id, the id of a key, and the syncer's own keys for a pattern."""

    def __init__(self, text: str) -> None:
        self._pattern = Pattern(text)
        self._prefix, self._suffix = self._pattern.prefix, self._pattern.suffix
        # As earlier releases wrote the pattern, so that their records are found: without doubled braces.
        self._text = f"{self._prefix}{PLACEHOLDER}{self._suffix}"
        self.owner = f"{len(self._prefix)}.{len(self._suffix)}"
        """Distinguishes this pattern from every other pattern that has a key in common with it."""
        # No document's key can begin like this, so a version key never equals a document's key.
        self._mark = "version:" if self._prefix[0] != "v" else "~version:"
        self._partials = "partials:" if self._prefix[0] != "p" else "~partials:"
        self.meta = f"syncer:meta:{self._text}"
        """The key that records which read model the documents belong to."""

    @property
    def taken_hint(self) -> str:
        """The advice when the keys belong to another read model."""
        return f"choose another key; if that read model no longer exists: redis-cli DEL '{self.meta}'"

    def document(self, id: str) -> str:
        return f"{self._prefix}{id}{self._suffix}"

    def version(self, key: str) -> str:
        """Returns the version key of a document's key. It is in the same slot and unique to the document."""
        return _in_same_slot(self._mark, key)

    def of_version(self, mark: bytes) -> str | None:
        """Returns the id whose version key this is. None if it is no version key of this pattern."""
        return self._of(self._mark, mark)

    def partials(self, key: str) -> str:
        """Returns the key of the partials of a document's key. It is in the same slot and unique to the document."""
        return _in_same_slot(self._partials, key)

    def of_partials(self, key: bytes) -> str | None:
        """Returns the id whose partials this key holds. None if it is no such key of this pattern."""
        return self._of(self._partials, key)

    def _of(self, prefix: str, mark: bytes) -> str | None:
        text = mark.decode(errors="replace").removeprefix(prefix)
        if text.startswith("{"):
            key = text[1:-1]
        else:
            key = text[1:] if text.startswith(":") else text.partition("}")[2]
        found = self.id(key.encode())
        return found if found is not None and _in_same_slot(prefix, key).encode() == mark else None

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
        return [f"syncer:mark:{{{_tag_of_slot(number)}}}:{self._text}" for number in slots]

    def watermark(self, in_slot: int | None = None) -> str:
        """Returns the key of the watermark. in_slot: of a further primary of a cluster, one of whose slots this is."""
        tag = "" if in_slot is None else f"{{{_tag_of_slot(in_slot)}}}:"
        return f"syncer:watermark:{tag}{self._text}"

    @property
    def glob(self) -> str:
        """The pattern for SCAN. It matches all documents and may match other keys, which `id` rejects."""
        return self._pattern.glob

    @property
    def version_glob(self) -> str:
        """The pattern for SCAN of the version keys. It may match other keys, which `of_version` rejects."""
        return f"{self._mark}*{self._pattern.glob}*"

    @property
    def partials_glob(self) -> str:
        """The pattern for SCAN of the keys of partials. It may match other keys, which `of_partials` rejects."""
        return f"{self._partials}*{self._pattern.glob}*"


def _in_same_slot(prefix: str, key: str) -> str:
    """Returns a key with this prefix that is in the slot of a document's key."""
    if "}" not in key:
        return f"{prefix}{{{key}}}"
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    if opened and closed and tag:
        return f"{prefix}:{key}"
    return f"{prefix}#{{{_tag_of_slot(slot(key))}}}{key}"


def slot(key: str) -> int:
    return key_slot(key.encode())


@functools.cache
def _tag_of_slot(wanted: int) -> int:
    """Returns a number whose text is in this slot. It is for keys that no tag can repeat, such as `a}b`."""
    number = 0
    while key_slot(b"%d" % number) != wanted:
        number += 1
    return number
