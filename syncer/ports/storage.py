"""What the layers above the pipeline ask of the syncer's own storage. One `Backend` makes it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from syncer.errors import Retry
from syncer.events import Position
from syncer.ports.pipeline import DeadLetters, Partition, Record, Source, WorkTopic

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


def ends_of(topics: Collection[str], ends: Mapping[Partition, int]) -> dict[Partition, int]:
    """Returns the ends of these topics. Raises Retry if one of them has none.

    All of them exist while a read model is open. But a broker that just started may not list them all. A caller that
    trusts such an answer does not wait for the others.
    """
    found = {partition: end for partition, end in ends.items() if partition[0] in topics}
    if missing := set(topics) - {topic for topic, _ in found}:
        what = "the end offsets of a topic are unknown"
        raise Retry(what, where=f"topic {min(missing)}", hint="check that Kafka is up")
    return found


class GroupSource(Source, Protocol):
    """A `Source` that is one member of a consumer group."""

    def is_assigned(self, partition: Partition) -> bool:
        """Returns whether the group has assigned this partition to this member. Any thread may call this."""
        ...


class Follower(Protocol):
    """Reads topics as they grow. It is no member of a consumer group, and commits nothing."""

    def poll(self, timeout: float) -> list[Record]:
        """Returns the records that have arrived. If there is none, waits for one for at most `timeout` seconds.

        Raises Retry if the next record cannot be read, for example because it was deleted.
        """
        ...

    def close(self) -> None: ...


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

    def settings(self, topic: str) -> dict[str, str] | None:
        """Returns the settings that apply to a topic, with defaults; None if the topic does not exist."""
        ...

    def begins(self, topics: Collection[str]) -> dict[Partition, int]:
        """Returns the first offset that each partition still has."""
        ...

    def ends(self, topics: Collection[str], at_ms: int | None = None) -> dict[Partition, int]:
        """Returns the end offset of each partition.

        at_ms: returns the first offset of that time or later instead, −1 where there is none.
        """
        ...

    def known_ends(self, topics: Collection[str]) -> dict[Partition, int]:
        """As `ends`, at once: leaves out topics whose end offsets are not all known now."""
        ...

    def committed(self, group: str, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Returns the offsets of these partitions that a group has committed. Leaves out partitions without one."""
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

    def follow(self, start: Mapping[Partition, int]) -> Follower:
        """Follows these partitions from these offsets on. The caller closes the follower."""
        ...

    def between(self, start: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[tuple[Record, int]]:
        """Yields the records of these partitions from `start` up to `ends`, each with the time when Kafka got it.

        Times are in milliseconds since the Unix epoch. Records of one partition are in order. Raises Retry if no
        record arrives for some seconds.
        """
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
        """Returns the end offset of each partition. Raises Retry if no broker lists the queue."""
        ...

    def left(self, ends: Mapping[int, int] | None = None, begins: Mapping[int, int] | None = None) -> int:
        """Returns how many items between these offsets no worker has committed. Without `ends`: until now."""
        ...

    def backlog(self, first: int) -> list[Backlog]:
        """Returns the partitions with items that no worker has committed. first: items to read of each."""
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
    since_ms: int
    """When the subject was first rejected, milliseconds since the Unix epoch. A later rejection does not change it."""
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
    """A small durable map from a key to a JSON object, shared by all processes. `registry/records/` has the keys."""

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

    def load_since(self, moment: float) -> Mapping[str, Mapping[str, Any]]:
        """Returns the last value of every key, as of a read that began at this time or later (monotonic seconds).

        Callers that ask at about the same time share one read. Raises Retry when the store is unreachable.
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
