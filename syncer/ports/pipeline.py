"""What the pipeline asks of PostgreSQL, Kafka and the runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from syncer.clock import Identity, Snapshot
from syncer.declaration.compile import Lookup, TableUse
from syncer.document import Outcome, Row
from syncer.errors import Reject
from syncer.events import Key, Position, TableName, Values, WorkItem
from syncer.quantities import counted

Partition = tuple[str, int]
"""Topic and number."""


class Record(NamedTuple):
    """One record of the source, as bytes. `pipeline/decode.py` decodes it."""

    position: Position
    key: bytes | None
    value: bytes | None


class Source(Protocol):
    """An ordered stream that can be read again. The members of a consumer group share its partitions."""

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        """Returns the available records. If there is none, waits for one for at most `timeout` seconds.

        Raises Retry when the source is unreachable. Raises Fatal when the next record has been deleted from it.
        """
        ...

    def commit(self, next_offsets: Mapping[tuple[str, int], int], *, wait: bool) -> None:
        """Commits the next offset of each partition (topic, number). Idempotent.

        wait: whether to return only after the source has acknowledged the commit.
        """
        ...

    def heartbeat(self) -> None:
        """Keeps the membership in the group without polling records. The lane calls this about once a second."""
        ...

    def progress(self) -> Mapping[tuple[str, int], tuple[int, int]]:
        """Returns the next offset to poll and the last known end offset of each assigned partition."""
        ...

    def close(self) -> None: ...


class WorkTopic(Protocol):
    """A topic of the read model's own, for work that is too large for one batch."""

    topic: str

    def put(self, item: WorkItem) -> None:
        """Queues an item for sending. Waits only while the queue is full. `flush` makes the item durable."""
        ...

    def flush(self) -> None:
        """Waits until all items are durable. Raises Retry if they are not."""
        ...


class DeadLetters(Protocol):
    """The records and documents that could not be accepted, each with the reason, until it is accepted.

    `kafka/dead_letters.py` has the details. The methods queue letters. `flush` makes them durable.
    """

    def document(self, id: str, version: int, reason: str) -> None:
        """Writes a letter about a document as a snapshot of this version shows it. version 0: there is no snapshot."""
        ...

    def record(self, record: Record, reason: str) -> None:
        """Writes a letter with a record that cannot be read."""
        ...

    def accepted(self, ids: Iterable[str], version: int) -> None:
        """Closes the letters about these documents, except letters of a later version.

        Every sink has accepted the documents as a snapshot of this version shows them, or has newer ones.
        """
        ...

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        """Closes the letters about these partials, except letters of a later version.

        Every sink has accepted a document that shows the partial in this version.
        """
        ...

    def flush(self) -> None:
        """Waits until all letters are durable. Raises Retry if they are not."""
        ...


class Observer(Protocol):
    """Receives the events of one lane, for metrics, logs and status. Never raises and never blocks."""

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Measures the time of a stage."""
        ...

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        """A batch of changes by operation. skipped: how many of them touched no document."""
        ...

    def dirty(self, roots: int, skipped: int) -> None:
        """The dirty roots of a batch. skipped: how many of them were last rendered after the change."""
        ...

    def refresh(self, reason: str) -> None:
        """All roots were handed over to the work topic, to be rendered again."""
        ...

    def gate(self, seconds: float) -> None:
        """A batch waited at the gate for this time."""
        ...

    def waiting(self, reason: str) -> None:
        """The lane waits for this reason. Empty: it goes on."""
        ...

    def writing(self, sink: str) -> AbstractContextManager[object]:
        """Encloses the write to one sink."""
        ...

    def written(self, sink: str, outcome: Outcome) -> None:
        """A sink has answered a write."""
        ...

    def rejected(self, error: Reject) -> None:
        """A record or document became a dead letter."""
        ...

    def delayed(self, roots: int) -> None:
        """Dirty roots were handed over to be rendered later, because they change often (`min_interval`)."""
        ...

    def reordered(self, documents: int) -> None:
        """Documents were handed over because an older version of them came last in a sink's log."""
        ...

    def cycles(self, relation: str, found: Sequence[str]) -> None:
        """Changed rows of a tree are ancestors of themselves. Their paths are cut.

        relation: its path in the read model. found: a text for each row, such as `3 → 7 → 3`.
        """
        ...

    def lag(self, records: int, seconds: float) -> None:
        """The lag now; `pipeline/lag.py` defines it."""
        ...


class Head(NamedTuple):
    """The result of the first statement in a view's transaction."""

    snapshot: Snapshot
    identity: Identity
    insert_lsn: int
    """`pg_current_wal_insert_lsn()`, in bytes. WAL of every transaction that the snapshot sees ends before it."""


class Overflow(Exception):
    """The result was too large or took too long. The caller renders fewer roots at a time.

    roots, size: the number of roots received so far, and their size in bytes. 0 if none was received in time.
    """

    def __init__(self, roots: int, size: int) -> None:
        super().__init__(f"{size} bytes of {counted(roots, 'document')}")
        self.roots, self.size = roots, size

    def fits(self, max_bytes: int) -> int:
        """Returns how many roots have about `max_bytes` bytes."""
        return max_bytes * self.roots // self.size if self.size else self.roots


class Pages(NamedTuple):
    """The size of a table."""

    files: str
    """Names the files of the table. They change if the table is rewritten."""
    total: int
    """The pages of the table, or of its largest partition."""
    step: int
    """The number of pages that are read in less than a second."""


class View(Protocol):
    """One REPEATABLE READ READ ONLY transaction. All its results come from one snapshot."""

    head: Head

    def look_up(self, lookup: Lookup, values: Collection[Values]) -> Iterator[Key]:
        """Yields the distinct root keys reached from these values. It streams them, because there may be millions."""
        ...

    def render(self, keys: Sequence[Key], max_bytes: int = 0) -> list[Row]:
        """Returns one row for each key.

        Raises Reject if PostgreSQL cannot render at least one of the keys. Raises Overflow if several documents have
        more than `max_bytes` together (0: no limit), or take longer than the statement timeout. The view stays
        usable after both.
        """
        ...

    def render_range(self, low: Key | None, high: Key, max_bytes: int = 0) -> list[Row]:
        """Renders every root with low < key <= high, as `render` does (low None: no lower bound)."""
        ...

    def keys_in_range(self, low: Key | None, high: Key) -> list[Key]:
        """Returns the keys of all roots with low < key <= high (low None: no lower bound)."""
        ...

    def first_keys(self, limit: int) -> list[Key]:
        """Returns the first roots in key order."""
        ...

    def boundaries(self, size: int) -> Iterator[Key]:
        """Yields the key of every `size`-th root in key order, and of the last root."""
        ...

    def pages(self, table: TableName) -> Pages:
        """Returns the size of a table, and what changes if its rows are moved to other pages without events."""
        ...

    def written_since(self, use: TableUse, xid: int, first: int, end: int) -> Collection[Values]:
        """Returns the link values of the rows of a table use that this transaction or a later one wrote.

        The values are those that `look_up` takes; of a root without a look-up, its keys.
        xid: 64 bits, at most 2^31 before the snapshot's `xmax`. first, end: a range of pages, without `end`.
        """
        ...

    def trees(self, tables: Collection[TableName]) -> dict[TableName, TableName]:
        """Returns the top table of each table's partition tree: the table itself, if it is no partition.

        Leaves out tables that do not exist. The tables may be foreign to the read model.
        """
        ...


class Rows(Protocol):
    """The source of truth: PostgreSQL. One connection, for one thread."""

    def view(
        self, *, root_only: bool = False, wait: Callable[[float], None] = time.sleep
    ) -> AbstractContextManager[View]:
        """Opens a view. Before the snapshot, locks the tables of the read model against ALTER TABLE, as a reader does.

        root_only: whether to lock the root table only. The view must not read other tables then.
        wait: waits for the given number of seconds while another session locks a table. It may raise to give up.

        Raises Retry if the server is unreachable or a standby, or if the tables were altered so that the read model
        has to be compiled again. Raises Fatal if the server refuses the login or the query.
        """
        ...

    def flushed(self, lsn: int) -> bool:
        """Whether WAL is flushed up to `lsn`. No view may be open.

        Raises Retry if the connection was lost: the server may have restarted without the WAL.
        """
        ...

    def flush(self) -> None:
        """Makes PostgreSQL flush WAL soon. This saves time only: without the call, the flush comes later."""
        ...

    def close(self) -> None: ...

    def statuses(self, xids: Collection[int]) -> dict[int, str]:
        """Returns `pg_xact_status` of transactions: `in progress`, `committed`, `aborted` or `in the future`."""
        ...
