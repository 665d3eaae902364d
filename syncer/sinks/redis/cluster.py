"""The servers behind a Redis address, one or the primaries of a cluster, and pipelines to each of them.

A cluster's commands are sent to the owner of the slot here, not by redis-py's cluster pipeline: that one
takes no scripts, and follows redirections by sending again. A redirected call is an error, and the layout
is asked for anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import RedisClusterException, RedisError, SlotNotCoveredError

from syncer.sinks.redis.keys import slot

FAILURES = (RedisError, RedisClusterException)
"""What the client raises; the errors of its cluster part have another base."""

Client = redis.Redis | redis.RedisCluster
_Item = TypeVar("_Item")


class Servers:
    """Connects with the first use. Safe to share between threads. All methods raise FAILURES."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._lock = threading.Lock()

    def client(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def each(self) -> list[redis.Redis]:
        """The server, or all primaries."""
        client = self.client()
        if not isinstance(client, redis.RedisCluster):
            return [client]
        primaries: Any = client.get_primaries
        return [client.get_redis_connection(node) for node in primaries()]

    def owners(
        self, items: Iterable[_Item], key: Callable[[_Item], str]
    ) -> Iterator[tuple[redis.Redis, list[list[_Item]]]]:
        """Each server with its items, in groups that one call may name together (of one slot)."""
        client = self.client()
        if not isinstance(client, redis.RedisCluster):
            yield client, [list(items)]
            return
        slots: dict[int, list[_Item]] = {}
        for item in items:
            slots.setdefault(slot(key(item)), []).append(item)
        nodes: dict[str, tuple[redis.Redis, list[list[_Item]]]] = {}
        for number, group in slots.items():
            node = client.nodes_manager.get_node_from_slot(number)
            if node is None:
                raise SlotNotCoveredError(f"no server has slot {number}")
            nodes.setdefault(node.name, (client.get_redis_connection(node), []))[1].append(group)
        yield from nodes.values()

    def refresh(self) -> None:
        """The layout of the cluster was found to be wrong: ask for it with the next use."""
        with self._lock:
            client = self._client
            if isinstance(client, redis.RedisCluster):
                self._client = None
                client.close()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()


def pipeline(node: redis.Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The answers, errors among them, of commands sent together. Raises FAILURES when they do not come."""
    with node.pipeline(transaction=False) as pipe:
        add: Any = pipe.execute_command
        for command in commands:
            add(*command)
        answers: list[Any] = pipe.execute(raise_on_error=False)
    return answers


def values(answers: Iterable[Any]) -> Iterator[Any]:
    """What keys hold: None for a key of another type, which is not ours. Raises what else went wrong."""
    for answer in answers:
        wrong = isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE")
        if isinstance(answer, Exception) and not wrong:
            raise answer
        yield None if wrong else answer
