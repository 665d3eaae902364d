"""Stores the watermark in one key per primary, because each primary can lose writes on its own.

A replica receives the writes of its primary in their order. So if a replica that becomes the primary has lost
documents, it has lost the watermark that was written after them, too.

One server has the key `syncer:watermark:PATTERN`. In a cluster, that key is on one of the primaries. Each other primary
has `syncer:watermark:{TAG}:PATTERN`, whose tag chooses a slot of that primary. The field `keys` of each lists them all.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import redis

from syncer.clock import version
from syncer.errors import Retry
from syncer.ports import PublishedWatermark
from syncer.sinks import watermark as stored
from syncer.sinks.problem import Problem
from syncer.sinks.redis.cluster import FAILURES, Servers
from syncer.sinks.redis.errors import classify_error
from syncer.sinks.redis.keys import Keys, slot
from syncer.sinks.redis.settings import Connection, Settings
from syncer.sinks.target import Target

_SCRIPT = resources.files(__package__).joinpath("publish.lua").read_text("utf-8")
_TRIAL = """
redis.call('HGET', KEYS[1], 'version')
redis.call('HSET', KEYS[1], 'version', '0')
return redis.call('DEL', KEYS[1])
"""


def publish(servers: Servers, keys: Keys, watermark: PublishedWatermark) -> None:
    """Writes the watermark to every primary, unless it has the same or a newer one. Raises FAILURES."""
    _write(servers, keys, watermark.version, stored.fields(watermark))


def withdraw(servers: Servers, keys: Keys, target: Target) -> None:
    """Removes the watermark of all earlier epochs, which may not write it again. Raises FAILURES.

    A generation that is built in place may overwrite documents with older ones for a while.
    """
    found: stored.Fields = {"model": target.model, "generation": target.generation, "epoch": target.epoch}
    _write(servers, keys, version(target.epoch, 0), found)


def lowest(servers: Servers, keys: Keys, generation: int) -> PublishedWatermark | None:
    """Returns the lowest watermark of all primaries. None if one of them has none. Raises FAILURES."""
    first = _read(servers, keys.watermark())
    names = first.get("keys", "").split()
    if not names:
        return None
    found = [stored.parse(first if name == keys.watermark() else _read(servers, name)) for name in names]
    known = [one for one in found if one is not None and one.generation == generation]
    return min(known, key=lambda one: one.version) if len(known) == len(names) else None


def _write(servers: Servers, keys: Keys, number: int, found: Mapping[str, str | int]) -> None:
    nodes = _nodes(servers, keys)
    values = [text for field in {**found, "keys": " ".join(nodes)}.items() for text in field]
    failure: Exception | None = None
    for key, node in nodes.items():
        command: Any = node.execute_command
        try:
            command("EVAL", _SCRIPT, 1, key, f"{number:020d}", *values)
        except FAILURES as error:  # of this server; others may do
            failure = error
    if failure:
        raise failure


def _nodes(servers: Servers, keys: Keys) -> dict[str, redis.Redis]:
    """Returns the key of each primary, with its client."""
    client = servers.client()
    if not isinstance(client, redis.RedisCluster):
        return {keys.watermark(): client}
    manager: Any = client.nodes_manager
    first = manager.get_node_from_slot(slot(keys.watermark()))
    if first is None:
        raise redis.exceptions.SlotNotCoveredError("no server has the slot of the watermark")
    found = {keys.watermark(): client.get_redis_connection(first)}
    lowest: dict[str, int] = {}
    for number, nodes in sorted(manager.slots_cache.items()):
        lowest.setdefault(nodes[0].name, number)
    for node in client.get_primaries():  # type: ignore[no-untyped-call]
        if node.name != first.name and node.name in lowest:
            found[keys.watermark(lowest[node.name])] = client.get_redis_connection(node)
    return found


def _read(servers: Servers, key: str) -> dict[str, str]:
    [(node, _)] = servers.owners([key], str)
    found: Any = node.hgetall(key)
    return {name.decode(): value.decode() for name, value in found.items()}


def published(connection: Connection, settings: Settings, generation: int) -> PublishedWatermark | None:
    """Returns the published watermark of a generation, for a command. Raises Retry and Fatal."""
    servers = Servers(connection.client)
    try:
        return lowest(servers, Keys(settings.key), generation)
    except FAILURES as error:
        raise classify_error(error, "cannot read the watermark", f"redis:{settings.key}") from error
    finally:
        servers.close()


def publishing_problems(connection: Connection, settings: Sequence[Settings]) -> list[Problem]:
    """Returns the missing permissions to publish watermarks. Writes to a key of its own and removes it.

    Raises Retry when the server does not answer.
    """
    servers, found = Servers(connection.client), []
    try:
        for one in settings:
            key = Keys(f"syncer-check-{uuid.uuid4().hex}:{one.key}").watermark()
            client: Any = servers.client()
            try:
                client.execute_command("EVAL", _TRIAL, 1, key)
            except FAILURES as error:
                refused = classify_error(error, "cannot publish", f"redis:{one.key}")
                if isinstance(refused, Retry):
                    raise refused from error
                hint = "allow the commands of docs/operations.md#privileges, or set freshness.publish_interval: 0"
                found.append(Problem("the watermark cannot be published in Redis", refused.why, hint))
    except FAILURES as error:
        raise classify_error(error, "cannot check", f"Redis at {connection.url}") from error
    finally:
        with contextlib.suppress(*FAILURES):
            servers.close()
    return found
