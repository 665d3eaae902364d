"""The values in Kafka records: change events that Debezium writes, and work items that the syncer writes.

`pipeline/decode.py` makes them from bytes. A column value is the JSON value that Debezium writes under the handling
modes that `syncer check` requires (decimals and times as text). `pipeline/resolve.py` turns it into PostgreSQL text.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Image = dict[str, Any]
"""A row image: column name → JSON value."""

Operation = Literal["c", "u", "d", "r", "t"]
"""Debezium's `op`: create, update, delete, read (snapshot), truncate."""


class TableName(NamedTuple):
    """The name of a table as in PostgreSQL's catalog: exact case, no quotes."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Position(NamedTuple):
    """The place of a record in Kafka. Offsets order the records of one partition only."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}, partition {self.partition}, offset {self.offset}"


class ChangeEvent(NamedTuple):
    """One change of one row. Operation `t` changes a whole table."""

    table: TableName
    op: Operation
    before: Image | None
    after: Image | None
    txid: int | None
    """Top-level transaction id, of 32 or 64 bits. None for snapshot reads; `pipeline/decode.py` has the reason."""
    committed_ms: int
    """Commit time on the PostgreSQL server, in milliseconds since the Unix epoch."""


Key = tuple[str, ...]
"""A root's primary key, or the values of its group expressions: the PostgreSQL text of each, in key order."""

Values = tuple[str | None, ...]
"""Column values of a row image that are looked up: the PostgreSQL text of each, or None for NULL."""


class WorkItem(NamedTuple):
    """Roots to render, in a topic of the read model's own.

    Kind `keys`: the roots of `keys`.
    Kind `range`: every root with `low` < key <= `high` (`low` None: no lower bound).
    Kind `sweep`: every document that the sinks hold, so that documents without a row are deleted. If `sink` is set,
    only the documents of this sink. If `since` is set, only the documents that were written after this marker
    (`ports.DurabilityToken.written`).
    """

    kind: Literal["keys", "range", "sweep"]
    reason: str
    """The cause: `backfill`, `fan-out`, `truncate`, `replay`, …. A label in logs and metrics."""
    run: str = ""
    """Groups the items of one request, for example of one backfill, to report its progress."""
    keys: tuple[Key, ...] = ()
    low: Key | None = None
    high: Key | None = None
    seconds: float = 0.0
    """Seconds from this item to the next one of its partition, at least. This limits the rate of a run, whichever
    process works on it. A lane that holds several partitions treats them as one, and divides the time by their number.
    """
    not_before_ms: int = 0
    """The item must not begin before this time, in milliseconds since the Unix epoch."""
    sink: str = ""
    since: str = ""
    committed_ms: int = 0
    """Since when its documents may be out of date, in milliseconds since the Unix epoch. It is the commit time of the
    change that caused the item, or the time when an alteration or a loss was detected. 0: no cause (a backfill)."""
