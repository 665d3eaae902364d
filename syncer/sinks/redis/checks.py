"""What `syncer check` asks of the Redis sink. Nothing here changes the server."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from syncer.declaration.compile import Compiled, Field
from syncer.errors import Fatal, Retry, SyncerError
from syncer.sinks.problem import Problem
from syncer.sinks.redis import durability
from syncer.sinks.redis.cluster import FAILURES, Servers
from syncer.sinks.redis.errors import classify_error
from syncer.sinks.redis.hash_format import nested_fields
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.settings import Connection, Settings

_MAX_SECONDS = 100 * 366 * 86400
"""Redis counts in milliseconds since 1970, and Lua prints larger numbers with an exponent."""

TARGET_HINT = "choose another key"


def target(settings: Settings) -> str:
    """Returns the key pattern."""
    return settings.key


def derived(settings: Settings, fields: Sequence[Field]) -> dict[str, Any]:
    """Returns nothing: Redis has no schema."""
    return {}


def validate(settings: Settings, fields: Sequence[Field]) -> list[Problem]:
    """Reports times that Redis cannot handle, and fields that a hash cannot hold."""
    found = [
        Problem(f"{name}: {value:.0f} seconds are too long for Redis", hint="100 years at most", block=(name,))
        for name, value in (("expire", settings.expire or 0), ("tombstone", settings.tombstone))
        if value > _MAX_SECONDS
    ]
    return found + (nested_fields(fields) if settings.format == "hash" else [])


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    """Reports a server that is unreachable, is a replica, may evict keys, or denies `INFO`."""
    servers, where = Servers(connection.client), f"Redis at {connection.url}"
    try:
        for node in servers.each():
            durability.server_identity(node, where)
    except Fatal as error:
        return [error]
    except FAILURES as error:
        return [classify_error(error, "Redis cannot be used", where)]
    finally:
        servers.close()
    return []


def trial(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    """Reports keys or commands that the user may not use, and keys of another read model.

    Runs the commands of the sink on the key of an id that no row has. The key does not exist, so SET … XX, DEL and
    EXPIRE change nothing. Raises Retry when the server does not answer.
    """
    keys = Keys(settings.key)
    key = keys.document(f"syncer-check-{uuid.uuid4().hex}")
    mark, meta = keys.version(key), keys.meta
    commands: list[list[Any]] = [
        ["GET", mark],
        ["TYPE", key],
        ["SET", mark, "", "XX"],
        ["DEL", key],
        ["EXPIRE", key, 1],
        ["HDEL", key, "x"] if settings.format == "hash" else ["SET", key, "", "XX"],
        ["GET", meta],
    ]
    servers = Servers(connection.client)
    try:
        client: Any = servers.client()
        answers = [client.execute_command(*command) for command in commands]
    except FAILURES as error:
        refused = classify_error(error, "Redis refuses to write", f"Redis at {connection.url}")
        if isinstance(refused, Retry):
            raise refused from error
        return [Problem(refused.what, refused.why, refused.hint, ("key",))]
    finally:
        servers.close()
    owner = orjson.loads(answers[-1])["model"] if answers[-1] else model.name
    if owner == model.name:
        return []
    return [Problem(f"the keys {settings.key} belong to the read model {owner}", "", keys.taken_hint, ("key",))]


def readers_elsewhere(connection: Connection, settings: Settings, generation: int) -> None:
    """Returns None: all generations share the keys."""
