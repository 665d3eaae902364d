"""The parts of redis-py that the Redis sink uses, over simulated servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import redis
from redis.crc import key_slot

from tests.simulation.redis_server import RedisServer


class Network(Protocol):
    """Carries requests to the servers."""

    def send(self, server: RedisServer, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Sends a pipeline. Returns an answer or an error for each command. Raises ConnectionError."""
        ...


class Connection(NamedTuple):
    """In the place of `settings.Connection`."""

    cluster: bool
    node: Any

    def client(self) -> Any:
        return self.node


class Client:
    """`redis.Redis` for one server."""

    def __init__(self, network: Network, server: RedisServer) -> None:
        self._network, self.server, self.name = network, server, server.name
        self._waiting: list[tuple[Any, ...]] = []

    # -- a pipeline -----------------------------------------------------------------------------------

    def pipeline(self, *, transaction: bool) -> Client:
        self._waiting = []
        return self

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def execute_command(self, *command: Any) -> None:
        self._waiting.append(command)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        return self._network.send(self.server, self._waiting)

    # -- single commands ------------------------------------------------------------------------------

    def info(self) -> Mapping[str, Any]:
        run_id = str(self.server.run_id)
        return {"role": "master", "run_id": run_id, "master_replid": run_id, "evicted_keys": 0}

    def script_load(self, text: str) -> None:
        self.server.load(text)

    def get(self, key: str) -> Any:
        return self.server.execute("GET", key)

    def set(self, key: str, value: bytes, *, nx: bool = False) -> Any:
        return self.server.execute("SET", key, value, *(["NX"] if nx else []))

    def hgetall(self, key: str) -> Any:
        return self.server.execute("HGETALL", key)

    def eval(self, text: str, *arguments: Any) -> Any:
        return self.server.execute("EVAL", text, *arguments)

    def scan_iter(self, *, match: str, count: int, _type: str) -> Iterator[bytes]:
        for key in self.server.keys(match, _type):
            yield key.encode()

    def zscan_iter(self, key: bytes, *, count: int) -> Iterator[tuple[bytes, float]]:
        for member, score in self.server.members(key.decode()):
            yield member.encode(), score

    def sscan_iter(self, key: bytes, *, count: int) -> Iterator[bytes]:
        for member, _ in self.server.members(key.decode()):
            yield member.encode()

    def close(self) -> None:
        """The server stays."""


class Cluster(redis.RedisCluster):
    """`redis.RedisCluster` without connections."""

    def __init__(self, network: Network, servers: Sequence[RedisServer]) -> None:
        self.clients = [Client(network, server) for server in servers]
        self.nodes_manager: Any = self

    def get_node_from_slot(self, slot: int) -> Client:
        return self.clients[slot % len(self.clients)]

    def get_primaries(self) -> Any:
        return self.clients

    def get_redis_connection(self, node: Any) -> Any:
        return node

    def get_nodes(self) -> Any:
        return []

    def close(self) -> None:
        """The servers stay."""

    def __del__(self) -> None:
        """There are no connections."""

    def get(self, name: Any) -> Any:
        return self.get_node_from_slot(key_slot(str(name).encode())).get(name)

    def set(self, name: Any, value: Any, *_: Any, nx: bool = False, **__: Any) -> Any:
        return self.get_node_from_slot(key_slot(str(name).encode())).set(name, value, nx=nx)

    def hgetall(self, name: Any) -> Any:
        return self.get_node_from_slot(key_slot(str(name).encode())).hgetall(name)

    def eval(self, text: Any, count: Any, *arguments: Any) -> Any:
        node = self.get_node_from_slot(key_slot(str(arguments[0]).encode()))
        return node.eval(text, count, *arguments)
