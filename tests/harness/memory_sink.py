"""A sink that keeps documents in a dictionary. Its distribution is in `installed/`, so it is a sink from outside.

Tests of the pipeline use it, and it passes the contract suite. It keeps the same records as the sinks with servers: the
version of every id, also of deleted ones, and what the documents were built from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from pydantic import Field as PydanticField

from syncer.declaration.compile import Compiled, Field
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import SyncerError
from syncer.ports import DurabilityToken
from syncer.sinks.problem import Problem
from syncer.sinks.target import Target

TARGET_HINT = ""


class Settings(BaseModel):
    """Keeps the documents in the memory of the process, for tests."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Connection(BaseModel):
    """The memory sink connects to nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str = PydanticField(default="", description="Name of a store that sinks of the process share")


@dataclass(slots=True)
class Store:
    """The documents, and what they were built from. A store can outlive its sinks, like a server."""

    documents: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)
    """id → (version, document). The document of a remembered delete is None."""
    built: Target | None = None
    durability: DurabilityToken = field(default_factory=lambda: DurabilityToken("", ""))
    """A test that removes something changes it."""
    lock: threading.Lock = field(default_factory=threading.Lock)


STORES: dict[str, Store] = {}
"""The shared stores by `Connection.store`."""


def target(settings: Settings) -> str:
    """Returns nothing: each read model has a store of its own."""
    return ""


def derived(settings: Settings, fields: Sequence[Field]) -> dict[str, Any]:
    return {}


def validate(settings: Settings, fields: Sequence[Field]) -> list[Problem]:
    return []


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    return []


def trial(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    return []


def readers_elsewhere(connection: Connection, settings: Settings, generation: int) -> None:
    """Returns None: there is only one generation."""


class MemorySink:
    """Implements `ports.Sink` over a `Store`. It rejects documents that are not JSON objects."""

    in_place = True

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
        shared = connection.store if connection else ""
        self.store = store or (STORES.setdefault(shared, Store()) if shared else Store())
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
        """Does nothing: there is only one generation."""
        return []

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        out = Outcome()
        wanted = [*batch.upserts.items(), *((id, None) for id in batch.deletes)]
        with self.store.lock:
            for id, body in wanted:
                if not id and body is None:
                    out.deleted += 1  # no such document can exist
                elif not id:
                    out.rejected.append(Rejection(id, "the id is empty", "the id"))
                elif body is not None and (reason := _misfit(body)):
                    out.rejected.append(Rejection(id, reason, "does not fit"))
                elif self.store.documents.get(id, (-1, None))[0] >= (version := batch.version_of(id)):
                    self._target.stale(id, version, self.store.documents[id][0], out)
                else:
                    self.store.documents[id] = (version, body)
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

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        with self.store.lock:
            return {id: self.store.documents[id][0] for id in ids if id in self.store.documents}

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Returns nothing: no document is removed by itself."""
        return set()

    def normalize(self, body: bytes) -> bytes | None:
        return body

    def count(self) -> int:
        return sum(1 for _ in self.ids())

    def close(self) -> None:
        """Does nothing; the store remains."""


def _misfit(body: bytes) -> str:
    """Returns why the sink rejects a document, or an empty text."""
    try:
        return "" if isinstance(orjson.loads(body), dict) else "not a JSON object"
    except orjson.JSONDecodeError as error:
        return str(error)


SINK = MemorySink
