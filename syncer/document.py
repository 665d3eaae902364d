"""What is written: rendered documents with one version, and what a sink made of them.

A document's id is its root's key. One column: the text itself. Several: joined by `|`, with `|` and `\\`
escaped by `\\`, so that no two keys share an id and `parse_id` gives the key back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from syncer.events import Key

_SPECIAL = re.compile(r"[\\|]")
_TOKEN = re.compile(r"\\(.)|(\|)|([^\\|]+)", re.DOTALL)


def document_id(key: Key) -> str:
    if len(key) == 1:
        return key[0]
    return "|".join(_SPECIAL.sub(r"\\\g<0>", part) for part in key)


def parse_id(text: str, columns: int) -> Key:
    """The key that `document_id` made this id from. Raises ValueError if it has not `columns` parts."""
    if columns == 1:
        return (text,)
    parts = [""]
    for escaped, bar, plain in _TOKEN.findall(text):
        if bar:
            parts.append("")
        else:
            parts[-1] += escaped or plain
    if len(parts) != columns:
        raise ValueError(f"{text!r} is not the id of a key of {columns} columns")
    return tuple(parts)


class Row(NamedTuple):
    """One answer of the render statement. There is one for every key asked for."""

    asked: str
    """The id of the key that was asked for."""
    id: str | None
    """The id of the row that was found: differs from `asked` where equal keys differ in text (1.0, 1.00)."""
    body: bytes | None
    """The document, JSON text without line breaks; None when there is no row or `where` excludes it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of one snapshot, on their way to the sinks."""

    version: int
    upserts: dict[str, bytes]
    deletes: list[str]

    def __len__(self) -> int:
        return len(self.upserts) + len(self.deletes)

    def ids(self) -> list[str]:
        return [*self.upserts, *self.deletes]

    def split(self, id: str) -> tuple[Batch, Batch]:
        """One of the upserts by itself, and the rest of the batch."""
        rest = {other: body for other, body in self.upserts.items() if other != id}
        return Batch(self.version, {id: self.upserts[id]}, []), Batch(self.version, rest, self.deletes)

    @property
    def size(self) -> int:
        """Bytes of document text."""
        return sum(map(len, self.upserts.values()))


NOTHING = Batch(0, {}, [])


class Rejection(NamedTuple):
    """A document that a sink will never take, and the sink's own words for it."""

    id: str
    reason: str
    kind: str = ""
    """The type of the error, the same for all documents with the same fault."""


@dataclass(slots=True)
class Outcome:
    """What a sink did with a batch; every id of it is counted in one of `written` … `refused`."""

    written: int = 0
    deleted: int = 0
    stale: int = 0
    """Not written, because the sink already has the same or a newer version: as good as written."""
    retry: list[str] = field(default_factory=list)
    """Not written now (busy, 429, cut connection): to be *rendered* again, never re-sent as they are."""
    retry_reason: str = ""
    rejected: list[Rejection] = field(default_factory=list)
    request_bytes: int = field(default=0, compare=False)
    """The size of a request that the sink takes at present (it may have too much to do); 0: no such limit."""
    newest_version: int = 0
    """The highest version that the sink had instead of ours, where it says it; 0 if none was newer."""

    def add(self, other: Outcome) -> None:
        self.written += other.written
        self.deleted += other.deleted
        self.stale += other.stale
        self.retry += other.retry
        self.retry_reason = other.retry_reason or self.retry_reason
        self.rejected += other.rejected
        self.request_bytes = other.request_bytes or self.request_bytes
        self.newest_version = max(self.newest_version, other.newest_version)


def batch(rows: list[Row], version: int) -> Batch:
    """Turn the rows of one snapshot into upserts and deletes.

    What was asked for and not found is a delete. So is an id that was asked for whose row calls itself
    otherwise; unless another row of this batch has that id.
    """
    upserts = {row.id: row.body for row in rows if row.id is not None and row.body is not None}
    gone = dict.fromkeys(row.asked for row in rows)
    gone |= dict.fromkeys(row.id for row in rows if row.id is not None)
    return Batch(version, upserts, [id for id in gone if id not in upserts])
