"""Rendered documents with one version, and the answer of a sink to them.

A document's id is its root's key. The id of a key with one column is the column's text. The texts of several columns
are joined by `|`, and `|` and `\\` are escaped by `\\`. So no two keys share an id, and `parse_id` returns the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from syncer.events import Key

_SPECIAL = re.compile(r"[\\|]")
_TOKEN = re.compile(r"\\(.)|(\|)|([^\\|]+)", re.DOTALL)


def document_id(key: Key) -> str:
    """Returns the id of a root's document."""
    if len(key) == 1:
        return key[0]
    return "|".join(_SPECIAL.sub(r"\\\g<0>", part) for part in key)


def parse_id(text: str, columns: int) -> Key:
    """Returns the key of an id that `document_id` made. Raises ValueError if it does not have `columns` parts."""
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
    """One row of the render statement's result. There is one for each requested key."""

    asked: str
    """The id of the requested key."""
    id: str | None
    """The id of the row found. It differs from `asked` where equal keys have different texts (1.0 and 1.00)."""
    body: bytes | None
    """The document as JSON text without line breaks. None if there is no row, or if `where` excludes it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The documents to write, and the ids to delete, with their versions."""

    version: int
    """The version of all documents of one snapshot, except those in `own_versions`."""
    upserts: dict[str, bytes]
    deletes: list[str]
    committed_ms: int = 0
    """Commit time of the newest change that the batch was rendered for, in milliseconds since the Unix epoch.

    0 if no change caused it, or if it is not known: a backfill, a work item, a second attempt."""
    own_versions: Mapping[str, int] = field(default_factory=dict)
    """By id. A document that is combined from partials has a version of its own. No other batch has any."""

    def version_of(self, id: str) -> int:
        return self.own_versions.get(id, self.version)

    def __len__(self) -> int:
        return len(self.upserts) + len(self.deletes)

    def ids(self) -> list[str]:
        return [*self.upserts, *self.deletes]

    def split(self, id: str) -> tuple[Batch, Batch]:
        """Returns one upsert alone, and the rest of the batch."""
        rest = {other: body for other, body in self.upserts.items() if other != id}
        return replace(self, upserts={id: self.upserts[id]}, deletes=[]), replace(self, upserts=rest)

    @property
    def size(self) -> int:
        """Bytes of document text."""
        return sum(map(len, self.upserts.values()))


NOTHING = Batch(0, {}, [])


class Rejection(NamedTuple):
    """A document that a sink will never accept, and the reason in the sink's words."""

    id: str
    reason: str
    kind: str = ""
    """The type of the error. All documents with the same fault have the same type."""
    document: str = ""
    """The id of the document, if `id` is that of one of its partials."""


@dataclass(slots=True)
class Outcome:
    """The answer of a sink to a batch.

    Each id of the batch counts in exactly one of `written`, `deleted`, `stale`, `retry` and `rejected`.
    """

    written: int = 0
    deleted: int = 0
    stale: int = 0
    """Not written, because the sink already has the same or a newer version. The lane treats it as written."""
    retry: list[str] = field(default_factory=list)
    """Not written now (busy, status 429, broken connection). The lane *renders* them again, and never resends them."""
    retry_reason: str = ""
    rejected: list[Rejection] = field(default_factory=list)
    request_bytes: int = field(default=0, compare=False)
    """The largest request that the sink sends at present, in bytes. It falls when the server is busy. 0: no limit."""
    newest_version: int = 0
    """The highest version of the newer documents that the sink kept. 0 if there is none, or the sink cannot know."""
    shown: dict[str, dict[str, int]] = field(default_factory=dict, compare=False)
    """Of documents that are combined from partials and were accepted: the versions of their partials.

    By document id and bucket.
    """

    def add(self, other: Outcome) -> None:
        """Adds the outcome of another part of the batch."""
        self.written += other.written
        self.deleted += other.deleted
        self.stale += other.stale
        self.retry += other.retry
        self.retry_reason = other.retry_reason or self.retry_reason
        self.rejected += other.rejected
        self.request_bytes = other.request_bytes or self.request_bytes
        self.newest_version = max(self.newest_version, other.newest_version)
        self.shown |= other.shown


def batch(rows: list[Row], version: int, committed_ms: int = 0) -> Batch:
    """Turns the rows of one snapshot into upserts and deletes. committed_ms: see `Batch`.

    A requested id without a row becomes a delete. If the row found has another id, the requested id becomes a
    delete, too, unless another row of this batch has that id.
    """
    upserts = {row.id: row.body for row in rows if row.id is not None and row.body is not None}
    gone = dict.fromkeys(row.asked for row in rows)
    gone |= dict.fromkeys(row.id for row in rows if row.id is not None)
    return Batch(version, upserts, [id for id in gone if id not in upserts], committed_ms)
