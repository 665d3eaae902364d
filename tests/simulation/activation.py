"""A resync that switches the readers of two sinks, with daemons, crashes, refusals and retries.

`operations/resync.py` and `operations/switch_readers.py` run unchanged, and so do the records of the registry. The
model has a number of changes instead of documents, and each generation shows the first of them. It replaces the
backfill and the lanes. A resync may be frozen. Then the operator may run another one, and both may continue.

The promises, checked after each step:

- Readers of each sink see exactly one generation. It exists and is complete.
- Once a wait was answered with 200, each sink shows the change, also after a switch.
- If a sink's readers see a generation that no daemon keeps in sync, the syncer reports that a resync was interrupted.

At the end, the operator repeats the resync if it is reported. Then all sinks show one generation, with all changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from greenlet import GreenletExit

from syncer.errors import Fatal, Retry, SyncerError
from syncer.freshness.switching import find_switch
from syncer.operations import resync as operation
from syncer.registry.records import Registration
from syncer.registry.state import StateSnapshot
from tests.simulation.choices import Choices
from tests.simulation.history import History
from tests.simulation.resyncing import MODEL, SimulatedRegistry, registration, replaced
from tests.simulation.scheduler import Actor, Scheduler
from tests.simulation.targets import Indexes, Server, Tables

_TURNS = 80
_ENOUGH = 500


class Broken(BaseException):
    """A promise is broken. It is not an Exception, so that the code under test cannot catch it."""


class World:
    """One schedule. It is also the state store (`ports.StateStore`), and the faults of the servers."""

    def __init__(self, choices: Choices) -> None:
        self.choices, self.scheduler = choices, Scheduler(choices)
        self.history = History(lambda: self.scheduler.now)
        self.values: dict[str, Mapping[str, Any]] = {}
        self.registry = SimulatedRegistry(self)
        self.servers: list[Server] = [Tables(), Indexes()]
        if choices.likely(128):
            self.servers.reverse()
        self.fails = choices.likely(200)
        self.changes = self.promised = 0
        """The number of changes in Kafka, and of those for which a wait was answered with 200."""
        self.resyncs: list[Actor] = []
        self.number = 0
        self._is_dead = False
        """Whether the current actor was killed, so that it executes nothing any more."""
        self.is_calm = True
        self.registry.state.save(Registration.key(registration(1).id), registration(1))
        self.registry.adopt(registration(1))
        for server in self.servers:
            server.sink(1, self).prepare()
            server.applied[1] = 0
        self.is_calm = False
        self.daemon = Daemon(self)

    # -- faults ---------------------------------------------------------------------------------------

    def step(self, what: str) -> bool:
        """See `targets.Faults`."""
        if self.is_calm:
            return False
        self.scheduler.pause()
        self.history.log(self.scheduler.current.name, "%s", what)
        if self.fails and self.choices.likely(16):
            self.history.log("network", "fails")
            if self.choices.likely(128):
                raise Retry("the server is unreachable")
            return True
        return False

    # -- the state topic ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The topic exists."""

    def load(self, max_age: float = 0.0) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.values)

    def load_since(self, moment: float) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.values)

    def save(self, key: str, value: Mapping[str, Any] | None) -> None:
        if self._is_dead:
            raise GreenletExit
        if key.endswith("/active") and not self.is_calm and self.choices.likely(48):
            self._freeze(self.scheduler.current)
            self.scheduler.sleep(0.0)
        is_lost = self.step(f"saves {key}: {'nothing' if value is None else value.get('generation', '')}")
        self.values.pop(key, None)
        if value is not None:
            self.values[key] = value
        if is_lost:
            raise Retry("Kafka did not acknowledge the record")

    @property
    def active(self) -> Registration:
        found = StateSnapshot(self.values).registration(MODEL)
        if found is None:
            raise AssertionError("the read model is registered")
        return found

    # -- the operator ---------------------------------------------------------------------------------

    def begin_resync(self) -> None:
        """Runs a resync, unless one runs that is not frozen. There are at most two."""
        self.resyncs = [one for one in self.resyncs if not one.greenlet.dead]
        if all(one.frozen for one in self.resyncs) and len(self.resyncs) < 2:
            self.number += 1
            self.history.log("operator", f"runs syncer resync, number {self.number}")
            self.history.seen["a resync ran while another one was frozen"] += len(self.resyncs)
            self.resyncs.append(self.scheduler.spawn(f"resync {self.number}", self.daemon, self._resync))

    def freeze_resync(self) -> None:
        if running := next((one for one in self.resyncs if not one.frozen and not one.greenlet.dead), None):
            self._freeze(running)

    def _freeze(self, resync: Actor) -> None:
        self.history.log(resync.name, "is frozen")
        resync.frozen = True

    def thaw_resyncs(self) -> None:
        for one in self.resyncs:
            if one.frozen:
                self.history.log(one.name, "continues")
                one.frozen = False

    def kill_resync(self) -> None:
        alive = [one for one in self.resyncs if not one.greenlet.dead]
        if alive:
            killed = alive[self.choices.of(len(alive))]
            self._is_dead = self.choices.likely(128)
            self.history.log(killed.name, "is killed" if self._is_dead else "is interrupted")
            self.history.seen["a resync was killed"] += 1
            self.history.seen["sinks showed two generations"] += len({tuple(one.read) for one in self.servers}) > 1
            self.scheduler.kill(killed)
            self._is_dead = False

    def _resync(self) -> None:
        """Runs the command, and deletes the targets that it prints."""
        model: Any = SimpleNamespace(name=MODEL)
        none: Any = None
        try:
            result = operation.resync(none, model, self.registry, none, 1, lambda _: None)
        except SyncerError as error:
            self.history.log(self.scheduler.current.name, "fails: %s", error.what)
            self.history.seen["a resync was obsolete"] += "obsolete" in error.what
            self.history.seen["a resync failed"] += 1
            return
        self.history.seen["a resync succeeded"] += 1
        for target in result.obsolete:
            self.scheduler.pause()
            self.drop(target)

    def drop(self, target: str) -> None:
        self.history.log("operator", "deletes %s", target)
        self.history.seen["an old generation was deleted"] += 1
        for server in self.servers:
            if (target[6] == "-") == isinstance(server, Indexes):
                server.drop(target)

    def refuse(self) -> None:
        server = self.servers[self.choices.of(2)]
        server.refuses = not server.refuses
        self.history.log(server.name, "refuses to switch" if server.refuses else "would switch")

    # -- the checks -----------------------------------------------------------------------------------

    def check(self) -> None:
        for server in self.servers:
            if len(server.read) != 1 or (shown := server.applied.get(server.read[0], -1)) < 0:
                raise Broken(f"readers of {server.name} see {server.read}, of {server.applied}")
            if shown < self.promised:
                raise Broken(f"readers of {server.name} see {shown} changes, waits for {self.promised} were answered")
            if server.read[0] != self.active.generation and not self.reported():
                raise Broken(f"it is not reported that readers of {server.name} see generation {server.read[0]}")

    def reported(self) -> bool:
        return find_switch(StateSnapshot(self.values), self.active, in_place=False) is not None

    def check_end(self) -> None:
        self.check()
        for server in self.servers:
            if server.read != [self.active.generation]:
                raise Broken(f"readers of {server.name} see {server.read}, active is {self.active.generation}")
            if server.applied[server.read[0]] != self.changes:
                raise Broken(f"{server.name} is not kept in sync")


class Daemon:
    """A daemon: it keeps the active generation in sync, and opens another one when that is registered."""

    dead = zombie = False

    def __init__(self, world: World) -> None:
        self.world, self.generation, self.retries = world, 0, True
        self.actor = world.scheduler.spawn("daemon", self, self._run)

    def restart(self) -> None:
        self.world.history.log("daemon", "is killed, and starts again")
        self.world.scheduler.kill(self.actor)
        self.actor = self.world.scheduler.spawn("daemon", self, self._run)

    def _run(self) -> None:
        world = self.world
        while True:
            try:
                self._follow(world.active.generation)
            except Retry:
                world.scheduler.sleep(1.0)
            except Fatal as error:
                world.history.log("daemon", "fails: %s", error.what)
                self.retries = False
                world.scheduler.until(lambda: self.retries or world.active.generation != self.generation)

    def _follow(self, generation: int) -> None:
        world, self.generation = self.world, generation
        for server in world.servers:
            server.sink(generation, world).prepare(new=False)
        while world.active.generation == generation:
            world.scheduler.until(lambda: world.active.generation != generation or self._is_behind())
            shown = world.changes
            for server in world.servers:
                world.step("writes")
                if generation not in server.applied:
                    raise Fatal("the target is missing")
                server.applied[generation] = max(shown, server.applied[generation])
            world.scheduler.pause()
            self._release(shown)

    def _is_behind(self) -> bool:
        return any(one.applied.get(self.generation) != self.world.changes for one in self.world.servers)

    def _release(self, shown: int) -> None:
        """Answers waits for these changes with 200, under the conditions of `freshness/evidence.py`."""
        world = self.world
        if world.active.generation == self.generation and not world.reported():
            world.promised = max(world.promised, shown)


def _turn(world: World, actor: Actor) -> None:
    world.scheduler.run(actor)
    world.check()


def _accidents(world: World) -> None:
    for _ in range(_TURNS):
        if world.choices.used_up:
            return
        what, able = world.choices.of(18), [one for one in world.scheduler.actors if one.runnable()]
        if what < 9 and able:
            _turn(world, able[world.choices.of(len(able))])
        elif what < 11:
            world.changes += 1
        elif what == 11:
            world.begin_resync()
        elif what == 12:
            world.kill_resync()
        elif what == 13:
            world.daemon.restart()
        elif what == 14:
            world.refuse()
        elif what == 15:
            world.freeze_resync()
        elif what == 16:
            world.thaw_resyncs()
        else:
            world.daemon.retries = True
        world.check()


def _calm(world: World) -> None:
    """Ends all faults. The operator repeats an interrupted resync, if it is reported."""
    world.choices.calm()
    for server in world.servers:
        server.refuses = False
    world.thaw_resyncs()
    _rest(world)
    if world.reported():
        world.history.seen["an interrupted switch was repeated"] += 1
        world.begin_resync()
    world.daemon.retries = True
    _rest(world)
    world.check_end()


def _rest(world: World) -> None:
    for _ in range(_ENOUGH):
        able = [one for one in world.scheduler.actors if one.runnable()]
        for actor in able:
            if not actor.greenlet.dead:
                _turn(world, actor)
        if not able:
            return
    raise Broken("it never comes to rest")


def run(decisions: bytes) -> tuple[str, Counter[str], list[str]]:
    """Runs one schedule. Returns the failure or an empty text, the events, and the history."""
    world = World(Choices(decisions))
    failure = ""
    with replaced(world):
        try:
            _accidents(world)
            _calm(world)
        except Broken as error:
            failure = str(error)
        except Exception as error:
            failure = repr(error)
        finally:
            for actor in list(world.scheduler.actors):
                world.scheduler.kill(actor)
    return failure, world.history.seen, world.history.lines()
