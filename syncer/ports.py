"""The ports: protocols for everything outside of the pipeline.

The first ones serve the pipeline. Kafka implements `Source`, `WorkTopic` and `DeadLetters` (`kafka/`). PostgreSQL
implements `Rows` and `View` (`postgres/`). Each package in `sinks/` implements `Sink`, and passes the contract suite
in `tests/contracts/`. The runtime implements `Observer`.

The last ones serve the layers above the pipeline. One `Backend` makes them.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from syncer.clock import Identity, Snapshot
from syncer.declaration.compile import Lookup
from syncer.document import Batch, Outcome, Row
from syncer.errors import Reject
from syncer.events import Key, Position, TableName, WorkItem


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

    def dirty(self, roots: int, shown: int) -> None:
        """The dirty roots of a batch. shown: how many were skipped, because their last render shows the changes."""
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

    def written(self, sink: str, outcome: Outcome) -> None:
        """A sink has answered a write."""
        ...

    def rejected(self, error: Reject) -> None:
        """A record or document became a dead letter."""
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
        super().__init__(f"{size} bytes of {roots} documents")
        self.roots, self.size = roots, size

    def fits(self, max_bytes: int) -> int:
        """Returns how many roots have about `max_bytes` bytes."""
        return max_bytes * self.roots // self.size if self.size else self.roots


class View(Protocol):
    """One REPEATABLE READ READ ONLY transaction. All its results come from one snapshot."""

    head: Head

    def look_up(self, lookup: Lookup, values: Collection[Key]) -> Iterator[Key]:
        """Yields the distinct root keys reached from these values. It streams them, because there may be millions."""
        ...

    def render(self, keys: Sequence[Key], most: int = 0) -> list[Row]:
        """Returns one row for each key.

        Raises Reject if PostgreSQL cannot render at least one of the keys. Raises Overflow if several documents have
        more than `most` bytes together (0: no limit), or take longer than the statement timeout. The view stays
        usable after both.
        """
        ...

    def render_range(self, low: Key | None, high: Key, most: int = 0) -> list[Row]:
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


class DurabilityToken(NamedTuple):
    """Opaque texts that change when a sink may have lost something it had acknowledged.

    Compare each text with the one read before. An unchanged text means that nothing was lost in between.
    """

    deletes: str
    """Changes when the sink may have forgotten the versions of deletes. An older write can then succeed."""
    documents: str
    """Changes when the sink may have lost acknowledged writes."""
    written: str = ""
    """A high watermark of the writes, for `InspectableSink.ids`. Do not compare it. Empty: not supported."""


class WritableSink(Protocol):
    """A store of documents that keeps the highest version it was given for every id."""

    name: str
    """Kind and target, such as `elasticsearch:orders`. Logs and metrics use it as a label."""

    def prepare(self, *, new: bool = True) -> None:
        """Creates what is missing (index, alias) and refuses a target that was built from another declaration.

        Blocks. Idempotent. Several processes may call it at once.

        new: whether the whole target of this generation may be missing. If False, it existed once; then a missing
        target is an error.

        Raises Fatal with the command to run, and Retry when the server is unreachable.
        """
        ...

    def outgrown(self) -> list[str]:
        """Returns one sentence for each field that the target cannot store or search with today's column types.

        Blocks; changes nothing. The list is empty when all fields fit. A resync builds a target that fits. Until
        then each rejected document becomes a dead letter. Raises Retry when the server is unreachable.
        """
        ...

    def activate(self) -> list[str]:
        """Lets applications read this generation. Blocks. Idempotent.

        Returns the names of older generations that the syncer no longer updates. An operator can delete them.
        Raises Fatal and Retry as `prepare` does.
        """
        ...

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """Writes each document unless the sink has the same or a newer version of it. A delete is a version too.

        timeout: seconds. The sink sends nothing after that and returns the rest in `retry`. The server may not
        hold a request longer than that either, for example while it waits for a shard.

        Blocks until the server has acknowledged. Idempotent: an equal version is counted as `stale`. Never
        retries. The caller renders the documents in `retry` again; it does not send them again. A document that
        fails does not affect the others: every id of the batch is counted once in the outcome.

        Raises Retry when the result of the whole batch is unknown, for example when the server is unreachable.
        Raises Fatal when the target is missing or belongs to a later epoch.
        """
        ...

    def close(self) -> None:
        """Closes the connections. Idempotent. Other methods must not be called after it."""
        ...


class InspectableSink(Protocol):
    """A store whose documents can be listed and read, for `syncer verify`, `repair` and sweeps.

    All methods block. They may be repeated, and they change no document. They raise Retry when the server is
    unreachable and Fatal when the target is missing.
    """

    name: str

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields the id of every document, in no order. An id may come twice.

        Documents that are written meanwhile may be missing.

        since: a `DurabilityToken.written`. Yields only the documents written later, if the sink supports it.
        """
        ...

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Returns id → document as JSON text. Ids without a document are left out."""
        ...

    def normalize(self, body: bytes) -> bytes | None:
        """Returns what `read` gives for a document that was written as `body`. Does not block.

        Returns None for a document that the sink never stores."""
        ...

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Returns id → the version that a write has to exceed, of documents and of remembered deletes.

        Ids without a version are left out, and so are documents that do not belong to the syncer. A later
        epoch is returned like any other version."""
        ...

    def count(self) -> int:
        """Returns the number of documents."""
        ...

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Returns those of these absent ids whose documents the sink removed because their time was over.

        ids: documents that `read` did not return. rendered: seconds since a backfill of all documents began.
        """
        ...


class DurableSink(Protocol):
    """A store that reports when it may have lost acknowledged writes or remembered deletes."""

    name: str

    def durability(self) -> DurabilityToken:
        """Returns the token of this moment. Changes nothing that applications can read.

        Blocks. Called every few seconds, concurrently with `write`.

        Raises Retry when the server cannot answer now (unreachable, shards not assigned). Raises Fatal when the
        target is missing, or when the server's settings allow it to lose documents.
        """
        ...


class Sink(WritableSink, InspectableSink, DurableSink, Protocol):
    """A sink with all three capabilities. Every sink of a read model has them.

    A function asks for the smallest of the three protocols that it needs. `docs/writing-a-sink.md` shows how to
    write a sink. The contract suite in `tests/contracts/` says what it must do.
    """


# -- the storage of the syncer itself -----------------------------------------------------------------
# A `Backend` makes the four ports below. `kafka/backend.py` is the first one. The packages above it use only these
# ports; `registry/backends.py` alone chooses a backend.

Partition = tuple[str, int]
"""Topic and number."""
P = TypeVar("P", bound=Hashable)


class Backlog(NamedTuple):
    """The records of one partition that a consumer group has not committed."""

    begin: int
    """The first of them."""
    end: int
    """The offset after the last of them."""
    first: list[Record]
    """Some of them, from `begin` on."""

    @property
    def records(self) -> int:
        return self.end - self.begin


def not_committed(
    ends: Mapping[P, int], committed: Mapping[P, int], begins: Mapping[P, int] | None = None
) -> dict[P, tuple[int, int]]:
    """Returns the offsets [first, end) that are not committed, for each partition that has some.

    ends: the offset after the last record that counts.
    begins: the first offset that counts. 0 for a partition that is missing.
    """
    first = {p: max(committed.get(p, 0), (begins or {}).get(p, 0)) for p in ends}
    return {p: (first[p], end) for p, end in ends.items() if end > first[p]}


def records_left(ends: Mapping[P, int], committed: Mapping[P, int], begins: Mapping[P, int] | None = None) -> int:
    """Returns how many records `not_committed` finds."""
    return sum(end - first for first, end in not_committed(ends, committed, begins).values())


class GroupSource(Source, Protocol):
    """A `Source` that is one member of a consumer group."""

    def is_assigned(self, partition: Partition) -> bool:
        """Returns whether the group has assigned this partition to this member. Any thread may call this."""
        ...


class ChangeLog(Protocol):
    """The topics of change events, and the consumer groups that read them.

    Raises Retry when the log is unreachable, Fatal when it denies access.
    """

    def missing(self, topics: Collection[str]) -> list[str]:
        """Returns the topics that do not exist."""
        ...

    def create(self, topics: Collection[str], *, partitions: int = 0) -> list[str]:
        """Creates the topics that do not exist, and returns their names. partitions: 0 for the configured number."""
        ...

    def require_uncompacted(self, topics: Collection[str]) -> None:
        """Raises Fatal if one of these topics is compacted: it then loses the before-images of changes."""
        ...

    def begins(self, topics: Collection[str]) -> dict[Partition, int]:
        """Returns the first offset that each partition still has."""
        ...

    def ends(self, topics: Collection[str], at_ms: int | None = None) -> dict[Partition, int]:
        """Returns the end offset of each partition.

        at_ms: returns the first offset of that time or later instead, −1 where there is none.
        """
        ...

    def committed(self, group: str) -> dict[Partition, int]:
        """Returns the committed offsets of a group. Empty if the group has none."""
        ...

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Sets the offsets of a group without members. Raises Retry if the group has members."""
        ...

    def members(self, group: str) -> int:
        """Returns how many consumers the group has now."""
        ...

    def left(self, group: str, ends: Mapping[Partition, int]) -> int:
        """Returns how many records before these ends the group has not committed."""
        ...

    def backlog(self, group: str, topics: Collection[str], first: int = 1) -> list[Backlog]:
        """Returns the partitions with records that the group has not committed. first: records to read of each."""
        ...

    def read(self, topic: str, start: Mapping[Partition, int]) -> list[Record]:
        """Returns every record from these offsets up to the current end."""
        ...

    def source(self, group: str, topics: Sequence[str], *, name: str) -> GroupSource:
        """Joins the group. name: the read model, for messages. The caller closes the source."""
        ...


class WorkQueue(WorkTopic, Protocol):
    """Work items of one generation of a read model, durable until a worker has committed them.

    Offsets are by number of the partition. For one thread.
    """

    def create(self) -> None:
        """Creates the queue if it does not exist."""
        ...

    def begins(self) -> dict[int, int]:
        """Returns the first offset that each partition still has."""
        ...

    def ends(self) -> dict[int, int]:
        """Returns the end offset of each partition."""
        ...

    def left(self, ends: Mapping[int, int] | None = None, begins: Mapping[int, int] | None = None) -> int:
        """Returns how many items between these offsets no worker has committed. Without `ends`: until now."""
        ...

    def backlog(self, first: int) -> list[Backlog]:
        """Returns the partitions with items that no worker has committed. first: items to read of each."""
        ...

    def members(self) -> int:
        """Returns how many workers take items now."""
        ...

    def source(self, *, name: str) -> GroupSource:
        """As `ChangeLog.source`, for the items."""
        ...


class Subject(NamedTuple):
    """The document or record that a dead letter is about."""

    kind: Literal["document", "record"]
    name: str
    """A document's id; `TOPIC/PARTITION/OFFSET` of a record."""

    @property
    def handle(self) -> str:
        """Returns eight letters and digits for an operator to type. All letters about one subject have the same."""
        digest = hashlib.sha256(f"{self.kind}/{self.name}".encode()).digest()
        return base64.b32encode(digest[:5]).decode().lower()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The last rejection of one subject, which nothing has resolved yet."""

    subject: Subject
    reason: str
    at_ms: int
    """When it was rejected, milliseconds since the Unix epoch."""
    version: int
    """Of the snapshot that showed the document; 0 for records."""
    cut: str
    """How much is kept of a record that was too large for a letter; empty if all is."""
    position: Position
    """Where the letter is in its store. A letter that is written later has a higher offset."""
    keys: tuple[bytes, ...]
    """The store's keys of all letters about the subject."""


class OpenDeadLetters(Protocol):
    """The open dead letters of one read model, as far as this process knows. All its lanes share them."""

    def refresh(self, timeout: float = 30.0) -> None:
        """Reads what other processes have written since the last call. For one thread.

        Raises Retry after `timeout` seconds. The next call continues there.
        """
        ...

    def writer(self) -> DeadLetters:
        """Returns the `DeadLetters` of one lane."""
        ...

    def __len__(self) -> int:
        """Returns the number of subjects that have an open letter."""
        ...


class DeadLetterStore(Protocol):
    """The dead letters of one read model. `kafka/dead_letters.py` shows why none is resolved too early."""

    def create(self) -> None:
        """Creates the store if it does not exist."""
        ...

    def end(self) -> int:
        """Returns the offset that the next letter will have."""
        ...

    def read(self) -> list[DeadLetter]:
        """Returns the open letters, one for each subject, in the order in which they were written."""
        ...

    def content(self, letter: DeadLetter) -> bytes | None:
        """Returns the record that the letter is about. None if the letter has been resolved since it was read."""
        ...

    def resolve(self, letters: Iterable[DeadLetter]) -> None:
        """Resolves these letters without a condition. Durable when this returns."""
        ...

    def open(self, *, oldest: int = 0) -> OpenDeadLetters:
        """Returns the open letters, not read yet: call `refresh`.

        oldest: lanes do not resolve letters of an earlier version (0: they resolve all).
        """
        ...


class StateStore(Protocol):
    """A small durable map from a key to a JSON object, shared by all processes. `registry/records.py` has the keys."""

    def prepare(self) -> None:
        """Creates the store if it does not exist, and waits until it can be read. Idempotent.

        Without it, `load` cannot tell a store that is new from one that a broker does not know yet. Raises Retry.
        """
        ...

    def load(self, max_age: float = 0.0) -> Mapping[str, Mapping[str, Any]]:
        """Returns the last value of every key, as of at most `max_age` seconds ago.

        With `max_age`, returns older values rather than wait longer than a second for another thread's load.
        Raises Retry when the store is unreachable.
        """
        ...

    def save(self, key: str, value: Mapping[str, Any] | None) -> None:
        """Writes one value; None removes the key. Durable when this returns. Raises Retry otherwise."""
        ...


class Backend(Protocol):
    """The storage of the syncer itself, for one configuration. Any thread may use it."""

    @property
    def changes(self) -> ChangeLog: ...

    @property
    def state(self) -> StateStore: ...

    def work_queue(self, name: str) -> WorkQueue: ...

    def dead_letters(self, name: str) -> DeadLetterStore: ...

    def ids(self, names: Collection[str]) -> dict[str, str]:
        """Returns the id of each topic or queue that exists. One that is deleted and created again has another id."""
        ...

    def ping(self, timeout: float) -> None:
        """Raises Retry if the backend does not answer within `timeout` seconds."""
        ...
