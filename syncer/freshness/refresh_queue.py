"""The keys that callers want to refresh, and the source from which a lane takes them.

A lane runs over a `RefreshSource` as it does over a topic. It commits a batch when every sink has acknowledged its
documents and all dead letters are durable. So this commit is the moment at which the callers get their result.

Equal keys of several callers are rendered once. The snapshot is taken after a lane has taken the keys from the queue.
So it is later than the request of each caller. A caller that arrives during the render waits for the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from syncer import document
from syncer.errors import Retry, SyncerError
from syncer.events import Key, Position, WorkItem
from syncer.pacing import SystemTime
from syncer.pipeline.decode import encode_item
from syncer.ports import DeadLetters, Partition, Record

REASON = "refresh"
"""`WorkItem.reason` of the items."""


class Render(NamedTuple):
    """How a document was refreshed."""

    version: int
    """The documents in all sinks have this version or a newer one."""
    begun_ms: int
    """The snapshot was taken after this time, in milliseconds since the Unix epoch."""
    rejected: str
    """The reason why a sink or PostgreSQL refused the document. Empty: every sink has accepted it."""


@dataclass(eq=False)
class Ticket:
    """One caller's keys, and the renders of them so far. The queue's lock protects it."""

    waiting: set[Key]
    renders: dict[Key, Render] = field(default_factory=dict)
    error: SyncerError | None = None
    done: threading.Event = field(default_factory=threading.Event)
    abandoned: bool = False
    """The caller has gone."""


Batch = dict[Key, list[Ticket]]


class RefreshQueue:
    """The keys that no lane has taken yet. Any thread may use it. size: of a batch."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pending: Batch = {}
        self._closed: SyncerError | None = None
        self._changed = threading.Condition()

    def submit(self, keys: Iterable[Key]) -> Ticket:
        """Adds keys to render. `Ticket.done` is set when all of them are rendered, or when that failed."""
        ticket = Ticket(set(keys))
        with self._changed:
            if self._closed:
                ticket.error = self._closed
                ticket.waiting.clear()
            for key in ticket.waiting:
                self._pending.setdefault(key, []).append(ticket)
            if not ticket.waiting:
                ticket.done.set()
            self._changed.notify()
        return ticket

    def take(self, timeout: float) -> Batch:
        """Returns a batch of keys with their callers. If there is none, waits for one for at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending, timeout)
            keys = list(self._pending)[: self._size]
            batch = {key: self._pending.pop(key) for key in keys}
            if self._pending:
                self._changed.notify()
            return batch

    def abandon(self, ticket: Ticket) -> None:
        """Removes a caller that no longer waits, and the keys that nobody else waits for."""
        with self._changed:
            ticket.abandoned = True
            for key in ticket.waiting & self._pending.keys():
                self._pending[key] = [other for other in self._pending[key] if other is not ticket]
                if not self._pending[key]:
                    del self._pending[key]

    def complete(self, batch: Batch, renders: Mapping[Key, Render]) -> None:
        """Gives the callers their results."""
        with self._changed:
            for key, tickets in batch.items():
                for ticket in tickets:
                    ticket.waiting.discard(key)
                    ticket.renders[key] = renders[key]
                    if not ticket.waiting:
                        ticket.done.set()

    def fail(self, batch: Batch, error: SyncerError) -> None:
        """Gives the callers of a batch an error."""
        with self._changed:
            for ticket in {ticket for tickets in batch.values() for ticket in tickets}:
                ticket.error = error
                ticket.done.set()

    def close(self, error: SyncerError) -> None:
        """Gives this error to all callers whose keys no lane has taken, and to all later ones."""
        with self._changed:
            self._closed = error
            pending, self._pending = self._pending, {}
            self._changed.notify_all()
        self.fail(pending, error)


class RefreshSource:
    """Implements `ports.Source` and `ports.DeadLetters` for one lane over the queue.

    topic: of work items, so that the lane takes the records for such. number: of the lane.
    letters: the dead letters of the read model.
    document_of: returns the id of a document from that of a dead letter. They differ if documents have partials.
    """

    def __init__(
        self,
        queue: RefreshQueue,
        topic: str,
        number: int,
        letters: DeadLetters,
        document_of: Callable[[str], str] = str,
    ) -> None:
        self._queue, self._topic, self._number, self._letters = queue, topic, number, letters
        self._document_of = document_of
        self._batch: Batch = {}
        self._begun_ms = self._offset = self._version = 0
        self._rejected: dict[str, str] = {}

    # -- ports.Source ---------------------------------------------------------------------------------

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        """Returns one batch of keys as a work item. Returns nothing while a batch is not committed."""
        if self._batch:
            return []
        self._batch = self._queue.take(timeout)
        if not self._batch:
            return []
        self._begun_ms, self._version, self._rejected = SystemTime().now_ms(), 0, {}
        self._offset += 1
        item = WorkItem("keys", REASON, keys=tuple(self._batch))
        return [Record(Position(self._topic, self._number, self._offset), None, encode_item(item))]

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        """Completes the batch: every sink has answered, and the dead letters are durable."""
        if next_offsets and self._batch:
            batch, self._batch = self._batch, {}
            ids = {key: document.document_id(key) for key in batch}
            # PostgreSQL may find a row under an equal key with another text. Its rejection concerns every caller then.
            others = next((why for id, why in self._rejected.items() if id not in ids.values()), "")
            renders = {
                key: Render(self._version, self._begun_ms, self._rejected.get(id, others)) for key, id in ids.items()
            }
            self._queue.complete(batch, renders)

    def heartbeat(self) -> None:
        """Raises Retry when all callers of the batch have gone: the lane then gives up the batch."""
        if self._batch and all(ticket.abandoned for tickets in self._batch.values() for ticket in tickets):
            raise Retry("all callers of this refresh have gone")

    def progress(self) -> Mapping[Partition, tuple[int, int]]:
        return {}

    def close(self) -> None:
        """Does nothing: `fail` gives the callers the lane's error."""

    def fail(self, error: SyncerError) -> None:
        """Gives the callers of the batch the error that ended the lane."""
        batch, self._batch = self._batch, {}
        self._queue.fail(batch, error)

    # -- ports.DeadLetters ----------------------------------------------------------------------------

    def document(self, id: str, version: int, reason: str) -> None:
        self._rejected[self._document_of(id)] = reason
        self._letters.document(id, version, reason)

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(f"a record of the queue cannot be read: {reason}")

    def accepted(self, ids: Iterable[str], version: int) -> None:
        """Every sink has acknowledged the documents of one snapshot."""
        self._version = min(self._version or version, version)
        self._letters.accepted(ids, version)

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        self._letters.accepted_partials(versions)

    def flush(self) -> None:
        self._letters.flush()


def rejected(renders: Mapping[Key, Render]) -> Sequence[tuple[str, str]]:
    """Returns the id and the reason of each document that was refused."""
    return [(document.document_id(key), one.rejected) for key, one in renders.items() if one.rejected]
