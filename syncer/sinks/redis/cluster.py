"""Sends pipelines to the servers behind a Redis address: one server, or the primaries of a cluster.

This module sends the commands of a cluster to the owner of each slot itself. It does not use the cluster pipeline of
redis-py, which supports no scripts and sends a redirected command a second time. Here a redirected call is an error.
Then the layout of the cluster is read again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
from redis.exceptions import RedisClusterException, RedisError, SlotNotCoveredError

from syncer.sinks.redis.errors import classify_error
from syncer.sinks.redis.keys import slot

FAILURES = (RedisError, RedisClusterException)
"""The errors of the client. Those of its cluster part have another base class."""

Client = redis.Redis | redis.RedisCluster
_Item = TypeVar("_Item")


class Servers:
    """Connects on first use. Safe to share between threads. The methods raise FAILURES, except in `classified`."""

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
        """Returns the server, or all primaries of the cluster."""
        client = self.client()
        if not isinstance(client, redis.RedisCluster):
            return [client]
        primaries: Any = client.get_primaries
        return [client.get_redis_connection(node) for node in primaries()]

    def owners(
        self, items: Iterable[_Item], key: Callable[[_Item], str]
    ) -> Iterator[tuple[redis.Redis, list[list[_Item]]]]:
        """Yields each server with its items. They are in groups of one slot, which one call may name together."""
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

    @contextmanager
    def classified(self, what: str, where: str) -> Iterator[None]:
        """Raises the errors of the client as the syncer's. The cluster's layout may be the cause: it is read again.

        what, where: as in `SyncerError`.
        """
        try:
            yield
        except FAILURES as error:
            self.refresh()
            raise classify_error(error, what, where) from error

    def refresh(self) -> None:
        """Discards the layout of the cluster. The next use reads it again."""
        with self._lock:
            client = self._client
            if isinstance(client, redis.RedisCluster):
                self._client = None
                _disconnect(client, in_use=False)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                _disconnect(self._client, in_use=True)


def _disconnect(client: Client, *, in_use: bool) -> None:
    """Closes the connections, those of a cluster too: redis-py leaves them to the garbage collector.

    in_use: also those that a thread uses at the moment.
    """
    client.close()
    if isinstance(client, redis.RedisCluster):
        nodes: Any = client.get_nodes
        for node in nodes():
            if node.redis_connection:
                node.redis_connection.connection_pool.disconnect(inuse_connections=in_use)


def pipeline(node: redis.Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Sends the commands together and returns their answers. An answer may be an error.

    Raises FAILURES when the server does not answer.
    """
    with node.pipeline(transaction=False) as pipe:
        add: Any = pipe.execute_command
        for command in commands:
            add(*command)
        answers: list[Any] = pipe.execute(raise_on_error=False)
    return answers


def values(answers: Iterable[Any]) -> Iterator[Any]:
    """Yields the values of keys. A key of another type does not belong to the syncer and counts as None.

    Raises the first other error among the answers.
    """
    for answer in answers:
        wrong = isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE")
        if isinstance(answer, Exception) and not wrong:
            raise answer
        yield None if wrong else answer
