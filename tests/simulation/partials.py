"""A sink that stores partials, as `sinks/redis/partials.lua` does: `ports.PartialSink`.

The model adds to `sink.py`:

- a hash of partials for each document. Its writes and the read of all its partials are one atomic step;
- hashes that expire while their root partial is a delete. This takes twice the time of a delete's memory, so nothing
  else waits by then: the model has no process that pauses for so long between the partials of one document;
- a failover that loses the last writes of partials and documents together, because both are in one log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from greenlet import GreenletExit

from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.errors import Retry
from syncer.pipeline import combine
from syncer.ports import Record, StoredPartial, StoredPartials
from tests.simulation.database import Rows
from tests.simulation.read_models import ReadModel
from tests.simulation.sink import CUT, UNREACHABLE, SimulatedSink, Store


class PartialStore(Store):
    """The server."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.partials: dict[str, dict[str, StoredPartial]] = {}
        """By document: its hash."""
        self.undo: list[Callable[[], None]] = []
        """Takes back the writes, in their order."""
        self.letters: dict[str, int] = {}
        """The open dead letters: id of a partial → the highest version that was rejected."""

    def begin(self, model: ReadModel, rows: Rows, version: int) -> None:
        """Fills the store with the partials of the rows, and with the documents."""
        for key in model.keys(rows):
            root, bucket = key[0], key[1]
            self.partials.setdefault(root, {})[bucket] = StoredPartial(version, model.render(rows, key).body)
        documents = model.documents(rows)
        found = {}
        for root, parts in self.partials.items():
            total = combine.combined_version((part.version for part in parts.values()), "orders")
            found[root] = (total, documents[root])
        self.fill(found)

    def write_partials(self, id: str, version: int, parts: Mapping[str, bytes | None]) -> dict[str, StoredPartial]:
        """Writes partials of one document and returns all of them. One atomic step."""
        known = self.partials.setdefault(id, {})
        before = dict(known)

        def take_back() -> None:
            self.partials[id] = before

        self.undo.append(take_back)
        for bucket, body in parts.items():
            if bucket not in known or known[bucket].version < version:
                known[bucket] = StoredPartial(version, body)
                self.written_partial(id, bucket)
        return dict(known)

    def written_partial(self, id: str, bucket: str) -> None:
        """Is called after each write. A weaker rule replaces it."""

    def forget(self) -> None:
        """Forgets the partials of deleted orders, as after twice the time for which deletes are remembered."""
        for id, parts in list(self.partials.items()):
            of_root = parts.get(ROOT_PARTIAL)
            if of_root is not None and of_root.body is None:
                self.history.seen["the sink forgot partials"] += 1
                self.history.log("sink", "forgets the partials of order %s", id)
                del self.partials[id]
                self.deleted.pop(id, None)

    def read_partials(self, id: str) -> dict[str, StoredPartial]:
        return dict(self.partials.get(id, {}))

    def apply(self, id: str, version: int, body: bytes | None) -> None:
        document, deleted = self.documents.get(id), self.deleted.get(id)

        def take_back() -> None:
            self.documents.pop(id, None)
            self.deleted.pop(id, None)
            if document:
                self.documents[id] = document
            if deleted:
                self.deleted[id] = deleted

        self.undo.append(take_back)
        super().apply(id, version, body)

    def lose_writes(self) -> None:
        """Loses the last writes, as after a failover to a replica."""
        self.losses += 1
        lost = self.scheduler.choices.of(min(len(self.undo), 6) + 1)
        for _ in range(lost):
            self.undo.pop()()
        self._bodies.clear()
        self.history.seen["the sink lost acknowledged writes"] += bool(lost)
        self.history.log("sink", "fails over, and loses the last %s writes", lost)


class LostPartials:
    """`ports.DeadLetters`: documents that are ahead of their partials, because the sink lost the partials.

    The sink loses partials while the document that was combined from them is on its way. Until the partials are
    rendered again, the document is rejected. If a bucket without rows was among them, nothing renders it again, and the
    letter stays until `syncer verify --repair`. So a document may differ only if it has a letter.
    """

    def __init__(self, store: PartialStore) -> None:
        self._store, self.letters = store, store.letters

    def document(self, id: str, version: int, reason: str) -> None:
        if not self._store.losses or "partials were lost" not in reason:
            raise AssertionError(f"unexpected: {reason}")
        self._store.history.seen["a document was ahead of lost partials"] += 1
        self._store.history.log("letters", "%s has a dead letter: %s", id, reason)
        self.letters[id] = max(version, self.letters.get(id, 0))

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(f"every record can be read here: {reason}")

    def accepted(self, ids: Iterable[str], version: int) -> None:
        self.accepted_partials((id, version) for id in ids)

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        for id, version in versions:
            if self.letters.get(id, version + 1) <= version:
                self._store.history.seen["a dead letter of a partial was closed"] += 1
                del self.letters[id]

    def flush(self) -> None:
        """All letters are durable."""


class SimulatedPartialSink(SimulatedSink):
    """The `Sink` of one process."""

    store: PartialStore

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        store = self.store
        scheduler, history, actor = store.scheduler, store.history, store.scheduler.current
        scheduler.pause()
        fate = self._fate()
        if fate == UNREACHABLE:
            history.seen["partials were not written"] += 1
            raise Retry("the server is unreachable")
        actor.sent = True
        arrive = len(partials) if fate != CUT else scheduler.choices.of(len(partials) + 1)
        found: dict[str, dict[str, StoredPartial]] = {}
        for id, parts in list(partials.items())[:arrive]:
            scheduler.pause()
            found[id] = store.write_partials(id, version, parts)
            history.log(self.who, "writes partials %s of order %s at clock %s", _shown(parts), id, store.shown(version))
        scheduler.pause()
        if self.process.dead:
            history.seen["a process died between its partials and its document"] += 1
            raise GreenletExit
        if fate == CUT:
            history.seen["partials were written and not answered"] += 1
            raise Retry("connection lost")
        actor.sent = False
        return found

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        self.store.scheduler.pause()
        return {id: found for id in ids if (found := self.store.read_partials(id))}

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        self.store.scheduler.pause()
        return {id: found for id in ids if (found := self.store.version(id)) >= 0}

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        return iter([(id, bucket) for id in list(self.store.partials) for bucket in self.store.read_partials(id)])


def _shown(parts: Mapping[str, bytes | None]) -> str:
    texts = [f"{'root' if b == ROOT_PARTIAL else b} {(body or b'gone').decode()}" for b, body in parts.items()]
    return ", ".join(texts)
