"""What some sinks do besides: publish the watermark, refresh searches, find strays, store partials, and more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from syncer.clock import version
from syncer.events import Position
from syncer.ports.pipeline import Partition
from syncer.ports.sinks import DurabilityToken


class PublishedWatermark(NamedTuple):
    """A watermark as applications find it in a store. The effect of every transaction that `snapshot` sees is there.

    Documents with an open dead letter are excluded.
    """

    model: str
    generation: int
    epoch: int
    clock: int
    """The clock of the snapshot. A later watermark of the same epoch has a higher one."""
    snapshot: str
    """`pg_current_snapshot()` as text."""
    taken_ms: int
    """When the snapshot was taken, by PostgreSQL's clock; milliseconds since the Unix epoch."""
    lsn: str
    """The WAL insert position before the snapshot was taken."""
    dead_letters: int
    """The number of open dead letters."""
    searchable_clock: int | None = None
    searchable_ms: int | None = None
    """As `clock` and `taken_ms`, of the last watermark that searches are known to show. None: unknown."""

    @property
    def version(self) -> int:
        """A store keeps the watermark with the highest version."""
        return version(self.epoch, self.clock)


@runtime_checkable
class PublishingSink(Protocol):
    """A store that keeps the watermark of the read model next to its documents. A sink may lack this capability."""

    name: str

    def publish(self, watermark: PublishedWatermark) -> None:
        """Stores the watermark, unless the store has the same or a newer one.

        Blocks for a few seconds at most. Called concurrently with `write`. Raises Retry and Fatal; the caller logs
        them.
        """
        ...

    def published(self) -> PublishedWatermark | None:
        """Returns the watermark of this generation that applications find. None if there is none.

        Blocks. If several servers hold one each, returns the lowest. Raises Retry and Fatal.
        """
        ...


@runtime_checkable
class RememberingSink(Protocol):
    """A store that compares its high watermark with an earlier one to detect losses.

    A sink may lack this capability.
    """

    name: str

    def remember(self, token: DurabilityToken) -> None:
        """Takes over a token that another object of the same sink has read, such as one before a restart.

        Does not block. May be called before `prepare`.
        """
        ...


@runtime_checkable
class SearchableSink(Protocol):
    """A store whose searches see a write only after a refresh. Reads by id see it at once.

    A sink whose reads all see a write at once lacks this capability.
    """

    name: str

    def make_searchable(self, timeout: float) -> None:
        """Returns when searches see every write that was acknowledged before the call.

        timeout: seconds. Blocks. Raises Retry if the server does not answer in time, and Fatal if it refuses.
        """
        ...


@runtime_checkable
class IndexedSink(Protocol):
    """A store that has further entries of a document, such as a member of a set. It records where they are.

    A sink that keeps each document in one place lacks this capability.
    """

    name: str

    def find_strays(self) -> int:
        """Searches for entries that are not in the record of their document, and adds them to it.

        Then `InspectableSink.read` shows these entries, `ids` yields their ids, and the next write of the document
        removes those that must not be there. Changes nothing that applications can read.

        Returns how many were found. Blocks, and reads all entries. Raises Retry when the server is unreachable.
        """
        ...


class LogEntry(NamedTuple):
    """One write in a `DocumentLog`, without the document."""

    position: Position
    id: str
    version: int
    """0 if the syncer did not write the entry."""
    at_ms: int
    """When it was written, in milliseconds since the Unix epoch."""


class LogStart(NamedTuple):
    """Where a reader of a `DocumentLog` begins to read a partition."""

    offset: int
    """The first entry to read, at least a window before `checked`."""
    checked: int
    """The entries before this offset were committed."""


class DocumentLog(Protocol):
    """The writes of a sink in the order in which its readers see them. The members of a group share its partitions.

    For one thread. Raises Retry when the server is unreachable, Fatal when it denies access.
    """

    window: float
    """Seconds. If two entries of an id are in the wrong order, there is at most this time between them."""

    def poll(self, timeout: float, max_entries: int) -> list[LogEntry]:
        """Returns the next entries, in the order of each partition. Waits up to `timeout` seconds for the first."""
        ...

    def starts(self) -> Mapping[Partition, LogStart]:
        """Returns the start of each assigned partition. Another object than before: it was assigned again."""
        ...

    def commit(self, next_offsets: Mapping[Partition, LogStart], *, wait: bool) -> None:
        """Commits the checked entries of each partition. `offset` is where the next reader has to begin.

        wait: whether to return only after the server has acknowledged the commit.
        """
        ...

    def heartbeat(self) -> None:
        """Keeps the membership in the group, as `Source.heartbeat` does."""
        ...

    def progress(self) -> Mapping[Partition, tuple[int, int]]:
        """Returns the next offset to poll and the last known end offset of each assigned partition."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class ReorderingSink(Protocol):
    """A sink whose readers see the last write of an id, not the write with the highest version.

    It cannot refuse every late write. So the syncer reads its log, and writes a document again when an older version
    of it came last (`pipeline/order_lane.py`).
    """

    name: str

    def document_log(self, group: str, *, max_age: float, since_ms: int) -> DocumentLog:
        """Joins the group that checks the order of the writes. The caller closes the log.

        max_age: no process writes a document this many seconds after its snapshot.
        since_ms: a group without committed offsets begins one window before this time, in milliseconds since the Unix
        epoch.
        """
        ...

    def log_ends(self) -> dict[Partition, int]:
        """Returns the offset after the last write of each partition of the log. Any thread may call it."""
        ...


class DocumentWrite(NamedTuple):
    """One write in a `DocumentTopic`, with the document."""

    partition: int
    offset: int
    id: str
    version: int
    """0 if the syncer did not write it."""
    body: bytes | None
    """The document as JSON text. None for a delete."""
    at_ms: int
    """When it was written, in milliseconds since the Unix epoch."""
    generation: int = 0
    """The generation that wrote it. 0 if the syncer did not write it."""
    committed_ms: int | None = None
    """Commit time of the newest change in its batch, in milliseconds since the Unix epoch. None: no change."""


class TopicState(NamedTuple):
    """A `DocumentTopic` as it is now."""

    id: str
    """A topic that is created again has another one."""
    begins: Mapping[int, int]
    """Partition → the first offset that it still has."""
    ends: Mapping[int, int]
    """Partition → the offset after its last write. Every partition has one."""
    retention: float
    """Seconds for which a delete can be read at least. After that, only the missing document shows it."""
    lossy: str = "cleanup.policy=compact"
    """The setting by which the topic removes writes, with its value. Empty if every write stays readable."""


class DocumentReader(Protocol):
    """Reads a `DocumentTopic` as it grows. For one thread at a time."""

    @property
    def next(self) -> Mapping[int, int]:
        """Partition → the offset that it reads next. Writes that compaction removed are passed over."""
        ...

    def poll(self, timeout: float) -> list[DocumentWrite]:
        """Returns the next writes, in the order of each partition. Waits up to `timeout` seconds for the first.

        Raises Retry if they cannot be read, for example because they were deleted.
        """
        ...

    def close(self) -> None: ...


class DocumentTopic(Protocol):
    """The documents of one read model, for readers outside of the pipeline. Any thread may use it.

    The last write of an id is its document, once the order lane has caught up (`pipeline/order_lane.py`). All methods
    block. They raise Retry when the server is unreachable, Fatal when it denies access.
    """

    name: str
    """For messages."""
    window: float
    """Seconds. If two writes of an id are in the wrong order, there is at most this time between them."""

    def state(self) -> TopicState:
        """Raises Retry if the topic does not exist."""
        ...

    def at_time(self, at_ms: int) -> dict[int, int]:
        """Returns the first offset of each partition at a time or later; the end offset where there is none."""
        ...

    def reader(self, start: Mapping[int, int]) -> DocumentReader:
        """Returns a reader from these offsets on. The caller closes it."""
        ...


class StoredPartial(NamedTuple):
    """A partial as a sink stores it."""

    version: int
    body: bytes | None
    """As it was written. None for a remembered delete."""
    refused: str = ""
    """Why the sink cannot store the partial, and what to do. Empty: it is stored."""


StoredPartials = Mapping[str, Mapping[str, StoredPartial]]
"""By document id: the partials of the document by bucket."""


@runtime_checkable
class PartialSink(Protocol):
    """A sink that stores the partials of documents where readers do not see them (`pipeline/combine.py`).

    All methods block. They raise Retry when the server is unreachable.
    """

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        """Writes each partial unless the sink has the same or a newer version of it. None is a delete, and remembered.

        Then returns all partials of these documents, as they are after the writes. The read must see every write that
        was acknowledged before. Documents that were not written within `timeout` seconds are left out. If the sink can
        never store the partials of a document, for example because they are too large, returns only these partials of
        it, with `refused`.

        The sink keeps all partials of a document while its root partial is no delete. Partials of an earlier epoch
        are dropped with the first write of a later one. Raises Fatal if there are partials of a later epoch.
        """
        ...

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        """Returns all partials of these documents, of the sink's own epoch."""
        ...

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        """Yields the document id and the bucket of every partial, in no order. One may come twice."""
        ...
