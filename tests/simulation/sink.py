"""`ports.Sink`: a store that keeps the highest version of each id, and its faults.

The model has:

- external versions, compared as Elasticsearch does;
- versions of deletes, which are forgotten after a time (`index.gc_deletes`) and when a shard's primary restarts;
- a server that loses writes which it had acknowledged;
- bulk requests that fail before they are applied, are applied in part, or are applied without an answer;
- documents that a busy server refuses for the moment;
- requests that arrive although the process that sent them is dead.

The items of a bulk request are applied one by one, and other requests may come in between. `refusals.py` models
documents that the sink refuses for good. The model has no indexes and mappings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from greenlet import GreenletExit

from syncer.clock import split_version
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Retry
from syncer.ports import DurabilityToken
from syncer.sinks.target import Target
from tests.simulation.application import compiled
from tests.simulation.database import Rows
from tests.simulation.history import History
from tests.simulation.read_models import ReadModel
from tests.simulation.refusals import Refusals
from tests.simulation.scheduler import Owner, Scheduler

NORMAL, UNREACHABLE, CUT, BUSY = range(4)
"""The fate of a bulk request: applied; not applied; applied in part or whole without an answer; some 429."""


class Store:
    """The server. base: see `Database`. remembers: seconds for which it keeps the version of a delete."""

    def __init__(
        self,
        scheduler: Scheduler,
        history: History,
        fail: Callable[[str], NoReturn],
        *,
        base: int,
        remembers: float,
        refusals: Refusals | None = None,
    ) -> None:
        self.refusals = refusals
        self.scheduler, self.history, self.fail, self.remembers = scheduler, history, fail, remembers
        self._base = base
        self.documents: dict[str, tuple[int, bytes]] = {}
        self.applied: dict[str, int] = {}
        """By id: the version of the last write. Unlike the server, it is never forgotten."""
        self.resurrected: set[str] = set()
        """Ids whose last write is older than a delete that the server has forgotten."""
        self.deleted: dict[str, tuple[int, float]] = {}
        """By id: version and time of the delete."""
        self.restarts = self.losses = 0
        self.written: list[str] = []
        """The ids of the written documents, in order. A position in the list is a marker for `ids`."""
        self._before: dict[str, tuple[tuple[int, bytes] | None, tuple[int, float] | None]] = {}
        self._bodies: dict[tuple[str, int], bytes | None] = {}

    def fill(self, documents: Mapping[str, tuple[int, bytes]]) -> None:
        """Puts documents and their versions into the empty store."""
        self.documents = dict(documents)

    def begin(self, model: ReadModel, rows: Rows, version: int) -> None:
        """Fills the store with the documents of the rows."""
        self.fill({id: (version, body) for id, body in model.documents(rows).items()})

    def found(self) -> dict[str, bytes]:
        """Returns what readers see, by id."""
        return {id: body for id, (_, body) in self.documents.items()}

    def expected(self, model: ReadModel, rows: Rows) -> dict[str, bytes]:
        """Returns what they should see."""
        return model.documents(rows)

    def version(self, id: str) -> int:
        """Returns the version that a write is compared with; −1 if there is none."""
        if id in self.documents:
            return self.documents[id][0]
        version, at = self.deleted.get(id, (-1, 0.0))
        if version >= 0 and self.scheduler.now - at > self.remembers:
            self.history.seen["the sink forgot a delete after its time"] += 1
            del self.deleted[id]
            return -1
        return version

    def apply(self, id: str, version: int, body: bytes | None) -> None:
        if self._bodies.setdefault((id, version), body) != body:
            self.fail(f"two contents of order {id} have the same version {self.shown(version)}")
        self._before[id] = self.documents.get(id), self.deleted.get(id)
        older = version < self.applied.get(id, 0)
        (self.resurrected.add if older else self.resurrected.discard)(id)
        self.applied[id] = version
        if body is None:
            self.documents.pop(id, None)
            self.deleted[id] = (version, self.scheduler.now)
        else:
            self.deleted.pop(id, None)
            self.documents[id] = (version, body)
            self.written.append(id)

    def shown(self, version: int) -> int:
        """Returns the clock of a version, for the history."""
        return split_version(version)[1] - self._base

    def restart_primary(self) -> None:
        self.history.seen["the sink's primary restarted"] += 1
        self.history.log("sink", "its primary restarts, and forgets deletes")
        self.deleted.clear()
        self.restarts += 1

    def lose_writes(self) -> None:
        """Loses the last write of some documents and the versions of all deletes, as after a failover to a replica."""
        self.losses += 1
        self.deleted.clear()
        lost = [id for id in self._before if self.scheduler.choices.of(2)]
        for id in lost:
            document, deleted = self._before.pop(id)
            self.documents.pop(id, None)
            self.applied.pop(id, None)
            if document:
                self.documents[id] = document
                self.applied[id] = document[0]
            elif deleted:
                self.deleted[id] = deleted
        self.history.seen["the sink lost acknowledged writes"] += bool(lost)
        self.history.log("sink", "fails over, and loses the last writes of orders %s", lost)


class SimulatedSink:
    """The `Sink` of one process."""

    in_place = True

    def __init__(self, store: Store, process: Owner, who: str, *, fails: bool, name: str = "simulated") -> None:
        self.name = name
        self.store, self.process, self.who, self._fails = store, process, who, fails
        self._target = Target.of(self.name, compiled(), 1, 1)

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        scheduler, history = self.store.scheduler, self.store.history
        actor = scheduler.current
        scheduler.pause()
        fate = self._fate()
        if fate == UNREACHABLE:
            history.seen["a bulk failed before it was applied"] += 1
            history.log(self.who, "cannot reach the sink")
            raise Retry("the server is unreachable")
        actor.sent = True
        items: list[tuple[str, bytes | None]] = [
            *batch.upserts.items(),
            *((id, None) for id in batch.deletes),
        ]
        arrive = len(items) if fate != CUT else scheduler.choices.of(len(items) + 1)
        out = Outcome()
        for at, (id, body) in enumerate(items[:arrive]):
            if at:
                scheduler.pause()
            if fate == BUSY and scheduler.choices.likely(128):
                history.seen["a sink was busy with some documents"] += 1
                history.log(self.who, "the sink is too busy for order %s", id)
                out.retry.append(id)
            else:
                self._item(id, batch.version_of(id), body, out)
        scheduler.pause()
        if self.process.dead:
            history.seen["a write of a dead process arrived"] += 1
            raise GreenletExit
        if fate == CUT:
            whole = arrive == len(items)
            history.seen["a bulk was applied and not answered" if whole else "a bulk was applied in part"] += 1
            history.log(self.who, "loses the connection to the sink")
            raise Retry("connection lost")
        actor.sent = False
        return out

    def _fate(self) -> int:
        choices = self.store.scheduler.choices
        return 1 + choices.of(3) if self._fails and choices.likely(50) else NORMAL

    def _item(self, id: str, version: int, body: bytes | None, out: Outcome) -> None:
        store = self.store
        clock = store.shown(version)
        what = "writes" if body is not None else "deletes"
        if store.refusals and (kind := store.refusals.kind(body)):
            store.history.log(self.who, "%s order %s at clock %s: refused (%s)", what, id, clock, kind)
            out.rejected.append(Rejection(id, kind, kind))
            return
        held = store.version(id)
        if held >= version:
            store.history.seen["a write was refused: the sink had a newer version"] += held > version
            store.history.seen["a zombie's write was refused"] += self.process.zombie and held > version
            store.history.log(
                self.who,
                "%s order %s at clock %s: kept, the sink has %s",
                what,
                id,
                clock,
                store.shown(held),
            )
            self._target.stale(id, version, held, out)
            return
        store.history.log(self.who, "%s order %s at clock %s: %s", what, id, clock, body or "gone")
        store.apply(id, version, body)
        out.written += body is not None
        out.deleted += body is None

    def ids(self, since: str = "") -> Iterator[str]:
        written = dict.fromkeys(self.store.written[int(since) :]) if since else self.store.documents
        return iter([id for id in written if id in self.store.documents])

    def durability(self) -> DurabilityToken:
        store = self.store
        return DurabilityToken(str(store.restarts), str(store.losses), str(len(store.written)))

    # -- not called by a lane ----------------------------------------------------------------------

    def prepare(self, *, new: bool = True) -> None:
        raise NotImplementedError

    def outgrown(self) -> list[str]:
        raise AssertionError("unexpected")

    def activate(self) -> list[str]:
        raise NotImplementedError

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        raise NotImplementedError

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        raise NotImplementedError

    def count(self) -> int:
        raise NotImplementedError

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        raise NotImplementedError

    def normalize(self, body: bytes) -> bytes | None:
        raise NotImplementedError

    def close(self) -> None:
        """The store stays."""
