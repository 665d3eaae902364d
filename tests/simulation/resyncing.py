"""A resync without Kafka and PostgreSQL: the registry in memory, and the parts that build a generation.

The backfill and the lanes of the new generation are replaced. They show the number of changes that Kafka has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import patch

from syncer.errors import Fatal, Retry
from syncer.operations import resync as operation
from syncer.operations import switch_readers as switching
from syncer.registry.records import BackfillRun, Registration, StateSlot
from syncer.registry.registry import Registry, superseded
from syncer.registry.state import State, StateSnapshot
from tests.simulation.application import compiled
from tests.simulation.scheduler import Scheduler
from tests.simulation.targets import Faults, Server

MODEL = "orders"


class Surroundings(Faults, Protocol):
    """The parts of the world that a resync needs."""

    scheduler: Scheduler
    servers: list[Server]
    values: dict[str, Mapping[str, Any]]
    changes: int


class SimulatedRegistry(Registry):
    """The registry without Kafka's topics and PostgreSQL."""

    def __init__(self, world: Any) -> None:
        self.state = State(world)

    def names(self, model: str, tables: object, generation: int) -> Any:
        return SimpleNamespace(work_topics=(), generation=generation)

    def dead_letters(self, model: str) -> Any:
        return SimpleNamespace(read=list, resolve=lambda letters: None)

    def register(self, *_: Any, generation: int, **__: Any) -> Registration:
        found = registration(generation)
        self.state.save(Registration.key(found.id), found)
        return found


def registration(generation: int) -> Registration:
    return Registration(MODEL, compiled().hash, generation, generation, {}, 0)


class _Build:
    """In the place of the backfill, and of the lanes that bring the new generation in sync."""

    def __init__(self, world: Surroundings) -> None:
        self.world = world

    def run(self, *_: Any, **__: Any) -> tuple[BackfillRun, int]:
        following = StateSnapshot(self.world.values).registration(MODEL, StateSlot.NEXT)
        if following is None:
            raise superseded(MODEL)
        generation = following.generation
        for server in self.world.servers:
            self._until_answered(server.sink(generation, self.world).prepare)
        self.world.scheduler.pause()
        shown = self.world.changes
        for server in self.world.servers:
            self.world.scheduler.pause()
            _apply(server, generation, shown)
        return BackfillRun("", planned=True, items=0, roots=0, started_ms=0), 0

    @contextmanager
    def caught_up(self, *arguments: Any) -> Iterator[Callable[[], None]]:
        generation = arguments[4].generation
        self._catch_up(generation)
        yield lambda: self._catch_up(generation)

    def _catch_up(self, generation: int) -> None:
        """Applies the changes that Kafka has now."""
        shown = self.world.changes
        for server in self.world.servers:
            self.world.scheduler.pause()
            _apply(server, generation, shown)

    def sinks(self, *_: Any, generation: int, **__: Any) -> Sequence[Any]:
        found = [server.sink(generation, self.world) for server in self.world.servers]
        for sink in found:
            sink.close = lambda: None
        return found

    def _until_answered(self, request: Callable[[], None]) -> None:
        while True:
            with suppress(Retry):
                return request()
            self.world.scheduler.sleep(1.0)


def _apply(server: Server, generation: int, shown: int) -> None:
    """Writes documents that show this number of changes."""
    if generation not in server.applied:  # the operator has deleted it
        raise Fatal("the target is missing")
    server.applied[generation] = max(shown, server.applied[generation])


@contextmanager
def replaced(world: Surroundings) -> Iterator[None]:
    """Replaces the parts of a resync that need servers."""
    build = _Build(world)
    loaded = SimpleNamespace(compiled=compiled())

    def poll_until(condition: Callable[[], bool], **_: Any) -> None:
        while not condition():
            world.scheduler.sleep(1.0)

    replacements: list[tuple[Any, str, Any]] = [
        (operation, "require_slot", lambda *_: None),
        (operation, "Backfill", lambda *_, **__: build),
        (operation, "caught_up", build.caught_up),
        (operation, "loader", SimpleNamespace(load_checked=lambda *_: loaded, build_sinks=build.sinks)),
        (switching, "poll_until", poll_until),
    ]
    with ExitStack() as stack:
        for owner, name, value in replacements:
            stack.enter_context(patch.object(owner, name, value))
        yield
