"""The Redis sink with indexes, over simulated servers. `syncer.sinks.redis` runs unchanged, with its Lua scripts.

The model has one server, or a cluster of two primaries. The steps that other clients can come between are:

- the commands of a pipeline. On a cluster, each document is a call of its own, because its slot differs;
- the requests of `find_strays`: it lists members, reads pointers, and then adds places to pointers.

Requests fail before they are executed, are cut off, or arrive although their process is dead. A script may fail after
some of its writes (`redis_server.py`). An application adds members by hand, which `verify --repair` has to remove.
The model has no documents that expire, no `EVAL` of other clients, and no slots that move to another server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
from greenlet import GreenletExit
from redis.crc import key_slot

from syncer.document import Batch, Outcome
from syncer.ports import DurabilityToken
from syncer.sinks.redis.record import parse
from syncer.sinks.redis.sink import RedisSink
from tests.simulation import boards
from tests.simulation.database import Rows
from tests.simulation.read_models import ReadModel
from tests.simulation.redis_client import Client, Cluster, Connection
from tests.simulation.redis_server import RedisServer
from tests.simulation.scheduler import Owner
from tests.simulation.sink import CUT, NORMAL, UNREACHABLE, Store

_SCRIPT_FAILS = 80
"""Of 256 calls that write: those whose script fails after some writes, in a world in which sinks fail."""


class RedisStore(Store):
    """The servers."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        clustered = self.scheduler.choices.likely(80)
        self.settings = boards.settings(clustered=clustered)
        self.nodes = [RedisServer(f"redis {at}", self.scheduler) for at in range(1 + clustered)]
        self.strays = 0
        """The number of members that were added by hand."""
        self.has_strays = self.scheduler.choices.likely(80)
        """Whether members are added by hand. The repair of them hides other faults."""
        self.sink = SimulatedRedisSink(self, _Calm(), "operator", fails=False)
        """Its requests are not interrupted."""
        self.sink.prepare()
        self._settle()

    def fill(self, documents: Mapping[str, tuple[int, bytes]]) -> None:
        for id, (version, body) in documents.items():
            self.sink.write(Batch(version, {id: body}, []))
        self._settle()

    def _settle(self) -> None:
        for node in self.nodes:
            node.settle()

    @property
    def clustered(self) -> bool:
        return len(self.nodes) > 1

    def node_of(self, key: str) -> RedisServer:
        return self.nodes[key_slot(key.encode()) % len(self.nodes)]

    def lose_writes(self) -> None:
        self.losses += 1
        node = self.nodes[self.scheduler.choices.of(len(self.nodes))]
        lost = self.scheduler.choices.of(6)
        node.fail_over(lost)
        self.history.seen["the sink lost acknowledged writes"] += bool(lost)
        self.history.log("sink", "%s fails over, and loses the last %s commands", node.name, lost)

    def add_by_hand(self) -> None:
        """Adds a member where its document has none. No pointer lists it."""
        id, game = str(1 + self.scheduler.choices.of(3)), self.scheduler.choices.of(boards.GAMES)
        place = boards.place(self.settings, id, game)
        node = self.node_of(place)
        if node.type(place) in ("none", "zset") and node.zscore(place, id) is None:
            node.execute("ZADD", place, "-1", id)
            self.strays += 1
            self.history.seen["a member was added by hand"] += 1
            self.history.log("application", "adds the member %s to %s by hand", id, place)

    def found(self) -> dict[str, bytes]:
        """Returns the documents. The members of each, and the places in its pointer, are documents of their own."""
        found: dict[str, bytes] = {}
        members: dict[str, dict[str, float | None]] = {}
        pointers: dict[str, Iterable[str]] = {}
        for node in self.nodes:
            for key in [*node.keys("order:*", "string"), *node.keys("version:*", "string")]:
                text = node.execute("GET", key)
                if key.startswith("order:"):
                    found[boards.id_of(key)] = text
                elif (record := parse(text, self.sink.owner)) and record.places:
                    pointers[boards.id_of(key)] = [boards.short(place.key) for place in record.places]
            for key in [*node.keys("*", "zset"), *node.keys("*", "set")]:
                for member, score in node.members(key):
                    members.setdefault(member, {})[boards.short(key)] = score
        return _with_members(found, members, pointers)

    def expected(self, model: ReadModel, rows: Rows) -> dict[str, bytes]:
        documents = model.documents(rows)
        members = {id: boards.members(body) for id, body in documents.items()}
        return _with_members(documents, members, members)


def _with_members(
    documents: Mapping[str, bytes],
    members: Mapping[str, Mapping[str, float | None]],
    pointers: Mapping[str, Iterable[str]],
) -> dict[str, bytes]:
    shown = {f"{id}, its members": str(sorted(places.items(), key=str)) for id, places in members.items()}
    listed = {f"{id}, its pointer": str(sorted(places)) for id, places in pointers.items()}
    return {**documents, **{name: text.encode() for name, text in (shown | listed).items()}}


class Verifier:
    """An operator who runs `syncer verify`: it adds the places of strays to the pointers."""

    dead = zombie = False

    def __init__(self, store: RedisStore) -> None:
        self._sink = SimulatedRedisSink(store, self, "verify", fails=False)
        store.history.log("verify", "begins")
        store.scheduler.spawn("verify", self, self._run)

    def _run(self) -> None:
        if found := self._sink.find_strays():
            self._sink.store.history.seen["verify found a stray"] += 1
            self._sink.store.history.log("verify", "adds %s strays to pointers", found)


class _Calm:
    """The owner of requests that nothing interrupts."""

    dead = zombie = False


class SimulatedRedisSink(RedisSink):
    """The sink of one lane."""

    def __init__(self, store: RedisStore, process: Owner, who: str, *, fails: bool) -> None:
        self.store, self.process, self.who, self.fails = store, process, who, fails
        client: Any = Cluster(self, store.nodes) if store.clustered else Client(self, store.nodes[0])
        connection: Any = Connection(store.clustered, client)
        super().__init__(store.settings, connection, model=boards.compiled())
        self.name = "simulated"

    @property
    def owner(self) -> str:
        return self._keys.owner

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        store, history = self.store, self.store.history
        clock = store.shown(batch.version)
        history.log(self.who, "writes %s, deletes %s at clock %s", dict(batch.upserts), list(batch.deletes), clock)
        out = super().write(batch, timeout)
        history.seen["a write was refused: the sink had a newer version"] += out.newest_version > batch.version
        return out

    def durability(self) -> DurabilityToken:
        """Without the marks, because the model has no server that is emptied."""
        return DurabilityToken("", " ".join(str(node.run_id) for node in self.store.nodes))

    # -- the network ----------------------------------------------------------------------------------

    def send(self, server: RedisServer, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Sends a pipeline. Returns an answer or an error for each command. Raises ConnectionError."""
        if isinstance(self.process, _Calm):
            return [self._answer(server, command, None) for command in commands]
        scheduler, history = self.store.scheduler, self.store.history
        actor, writes = scheduler.current, any(command[0] == "EVALSHA" for command in commands)
        scheduler.pause()
        fate = NORMAL
        if self.fails and scheduler.choices.likely(40):
            fate = (UNREACHABLE, CUT)[scheduler.choices.of(2)]
        if fate == UNREACHABLE:
            history.log(self.who, "cannot reach %s", server.name)
            raise redis.ConnectionError("the server is unreachable")
        actor.sent = writes
        arrive = len(commands) if fate != CUT else scheduler.choices.of(len(commands) + 1)
        answers = []
        for at, command in enumerate(commands[:arrive]):
            if at:
                scheduler.pause()
            fails = self.fails and command[0] == "EVALSHA" and scheduler.choices.likely(_SCRIPT_FAILS)
            answers.append(self._answer(server, command, scheduler.choices.of(7) if fails else None))
        scheduler.pause()
        if self.process.dead and writes:
            history.seen["a write of a dead process arrived"] += 1
            raise GreenletExit
        if fate == CUT:
            history.seen["a pipeline was cut off"] += 1
            history.log(self.who, "loses the connection to %s", server.name)
            raise redis.ConnectionError("connection lost")
        actor.sent = False
        return answers

    def _answer(self, server: RedisServer, command: tuple[Any, ...], fails_after: int | None) -> Any:
        answer: Any
        try:
            answer = server.execute(*command, fails_after=fails_after)
        except redis.ResponseError as error:
            if fails_after is not None:
                self.store.history.seen["a script failed halfway"] += 1
                self.store.history.log(self.who, "a script fails after %s writes", fails_after)
            answer = error
        for key in server.expiring():
            if "\n" in str(server.values[key]):
                self.store.fail(f"the pointer {key} expires, and its members do not")
        if command[0] == "EVALSHA":
            self.store.history.log(self.who, "%s answers %s", server.name, answer)
        return answer
