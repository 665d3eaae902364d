"""What travels: a change event as the source tells it, and a work item as we write it ourselves.

Values only; `pipeline/decode.py` makes them from bytes. Column values are what Debezium's JSON holds under the
handling modes that `check` insists on (decimals and times as text); `pipeline/resolve.py` turns them into text.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Image = dict[str, Any]
"""A row image: column name → JSON value."""

Operation = Literal["c", "u", "d", "r", "t"]
"""Debezium's `op`: create, update, delete, read (snapshot), truncate."""


class TableName(NamedTuple):
    """A table as PostgreSQL's catalog names it: exact case, no quotes."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Position(NamedTuple):
    """Where a record came from. Offsets order records within one partition only."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}, partition {self.partition}, offset {self.offset}"


class ChangeEvent(NamedTuple):
    """One change of one row (or, for `t`, of a whole table)."""

    table: TableName
    op: Operation
    before: Image | None
    after: Image | None
    txid: int | None
    """Top-level transaction id, 32 or 64 bits as the source has it; None for snapshot reads (`pipeline/decode.py` says
    why)."""
    committed_ms: int
    """Commit time on the PostgreSQL server, milliseconds since the Unix epoch."""


Key = tuple[str, ...]
"""A root's primary key: one PostgreSQL text representation a column, in primary-key order."""


class WorkItem(NamedTuple):
    """A work item: roots to render, written to the read model's own topic.

    kind `keys`: exactly `keys`. kind `range`: every root with `low` < key <= `high` (`low` None: no bound).
    kind `sweep`: every document that the sinks hold, so that those without a row go; or that `sink` holds,
    if it is named, of those the ones that it was given `since` (`ports.Memory.written`; empty: all).
    """

    kind: Literal["keys", "range", "sweep"]
    reason: str
    """What asked for it: `backfill`, `fan-out`, `truncate`, `replay`, …; a label in logs and metrics."""
    run: str = ""
    """Groups the items of one request, e.g. one backfill, so that its progress can be told."""
    keys: tuple[Key, ...] = ()
    low: Key | None = None
    high: Key | None = None
    seconds: float = 0.0
    """The least time from this item to the next of its partition: it limits a run's rate, whoever works. Who
    holds several partitions takes them as one, so many times as fast."""
    not_before_ms: int = 0
    """Wait until then (milliseconds since the Unix epoch)."""
    sink: str = ""
    since: str = ""
    committed_ms: int = 0
    """Since when its documents may be older than their rows: the commit time of the change that caused it, or
    when an alteration or a loss was detected (milliseconds since the epoch). 0: of no change (a backfill)."""
