"""Documents in a dictionary: for `--dry-run`, and for tests of the engine. Passes the sinks' contract suite.

It keeps what the real ones keep: the version of every id, also of deleted ones, and what the documents were
built from. A `Store` can outlive the sink, as a server would.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import orjson
from pydantic import BaseModel, ConfigDict

from syncer.declaration.compile import Compiled, Field
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import SyncerError
from syncer.ports import DurabilityToken
from syncer.sinks.problem import Problem
from syncer.sinks.target import Target


class Settings(BaseModel):
    """Keeps the documents in the memory of the process; for dry runs and tests."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Connection(BaseModel):
    """The memory sink connects to nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(slots=True)
class Store:
    """id → (version, document; None for a remembered delete), and what it was built from."""

    documents: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)
    built: Target | None = None
    durability: DurabilityToken = field(default_factory=lambda: DurabilityToken("", ""))
    """Changed by whoever takes something away."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def validate(settings: Settings, fields: Sequence[Field]) -> list[Problem]:
    return []


def tried(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    return []


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    return []


def misread(connection: Connection, settings: Settings, generation: int) -> None:
    """Never: there is one generation only."""


class MemorySink:
    """The `Sink` port over a `Store`. A document that is no JSON object is refused."""

    def __init__(
        self,
        settings: Settings | None = None,
        connection: Connection | None = None,
        *,
        model: Compiled,
        epoch: int = 1,
        generation: int = 1,
        store: Store | None = None,
    ) -> None:
        self.name = f"memory:{model.name}"
        self.store = store or Store()
        self._target = Target.of(self.name, model, epoch, generation)

    def prepare(self, *, new: bool = True) -> None:
        with self.store.lock:
            if (built := self.store.built) is None:
                if not new:
                    raise self._target.gone("the store")
            else:
                self._target.check_epoch(built.epoch, "the store")
                if built.generation >= self._target.generation:
                    self._target.check_hash(built.hash)
            self.store.built = self._target

    def outgrown(self) -> list[str]:
        return []

    def activate(self) -> list[str]:
        """There is one generation only, which is read."""
        return []

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        out = Outcome()
        wanted = [*batch.upserts.items(), *((id, None) for id in batch.deletes)]
        with self.store.lock:
            for id, body in wanted:
                if not id and body is None:
                    out.deleted += 1  # nothing can be there
                elif not id:
                    out.rejected.append(Rejection(id, "the id is empty", "the id"))
                elif body is not None and (reason := _unfit(body)):
                    out.rejected.append(Rejection(id, reason, "does not fit"))
                elif self.store.documents.get(id, (-1, None))[0] >= batch.version:
                    self._target.stale(id, batch.version, self.store.documents[id][0], out)
                else:
                    self.store.documents[id] = (batch.version, body)
                    out.written += body is not None
                    out.deleted += body is None
        return out

    def durability(self) -> DurabilityToken:
        return self.store.durability

    def ids(self, since: str = "") -> Iterator[str]:
        with self.store.lock:
            found = [id for id, (_, body) in self.store.documents.items() if body is not None]
        return iter(found)

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        with self.store.lock:
            found = {id: self.store.documents.get(id, (0, None))[1] for id in ids}
        return {id: body for id, body in found.items() if body is not None}

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Nothing is removed here by itself."""
        return set()

    def normalize(self, body: bytes) -> bytes | None:
        return body

    def count(self) -> int:
        return sum(1 for _ in self.ids())

    def close(self) -> None:
        """Nothing to close; the store stays."""


def _unfit(body: bytes) -> str:
    try:
        return "" if isinstance(orjson.loads(body), dict) else "not a JSON object"
    except orjson.JSONDecodeError as error:
        return str(error)


SINK = MemorySink
