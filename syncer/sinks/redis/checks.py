"""The checks of the Redis sink for `syncer check`. They do not change the server."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from syncer.declaration.compile import Compiled, Field
from syncer.errors import Fatal, Retry, SyncerError
from syncer.sinks.problem import Limit, Path, Problem
from syncer.sinks.redis import durability, indexes
from syncer.sinks.redis.claims import Claims
from syncer.sinks.redis.cluster import FAILURES, Servers
from syncer.sinks.redis.errors import classify_error
from syncer.sinks.redis.hash_format import nested_fields
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.patterns import ID, Pattern
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
    found += indexes.problems(settings.key, settings.indexes, fields)
    return found + (nested_fields(fields) if settings.format == "hash" else [])


def limits(settings: Settings) -> list[Limit]:
    """Returns the limit of each score."""
    return indexes.score_limits(settings.indexes)


def overlap(settings: Settings, other: Settings) -> Problem | None:
    """Returns which keys of an index can be keys of another read model. Keys of documents may overlap. No I/O."""
    for number, index in enumerate(settings.indexes):
        for text in (other.key, *(one.key.text for one in other.indexes)):
            if index.key.overlaps(Pattern(text)):
                return _shared(index.key.text, text, ("indexes", number))
    for index in other.indexes:
        if index.key.overlaps(Pattern(settings.key)):
            return _shared(settings.key, index.key.text, ("key",))
    return None


def _shared(own: str, other: str, block: Path) -> Problem:
    return Problem(f"keys of {own} can equal keys of {other}", hint="begin them with different texts", block=block)


def one_slot(connection: Connection, settings: Settings) -> Fatal | None:
    """Returns an error if a document and its members are not in one slot of a cluster. No I/O."""
    why = indexes.tag_problem(settings.key, settings.indexes) if connection.cluster and settings.indexes else ""
    if not why:
        return None
    return Fatal(
        "on a cluster, the keys of a document and of its indexes need the same hash tag, of fixed text or {id}",
        where=f"redis:{settings.key}",
        why=why,
        hint="write the tag in doubled braces, because {…} is a field: "
        f"key: '{{{{tag}}}}:{settings.key}', indexes: key: '{{{{tag}}}}:{settings.indexes[0].key.text}'",
    )


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
    return [found for one in settings if (found := one_slot(connection, one))]


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
    ]
    for index in settings.indexes:
        place, remove = index.key.fill(dict.fromkeys([ID, *index.key.names], key)), index.kind == "zset"
        commands.append(["ZREM" if remove else "SREM", place, index.member.fill({ID: key})])
    commands.append(["GET", meta])
    servers = Servers(connection.client)
    try:
        client: Any = servers.client()
        answers = [client.execute_command(*command) for command in commands]
        taken = Claims(servers, model.name, settings.key, settings.indexes).conflict()
    except FAILURES as error:
        refused = classify_error(error, "Redis refuses to write", f"Redis at {connection.url}")
        if isinstance(refused, Retry):
            raise refused from error
        return [Problem(refused.what, refused.why, refused.hint, ("key",))]
    finally:
        servers.close()
    owner = orjson.loads(answers[-1])["model"] if answers[-1] else model.name
    if owner == model.name:
        return [taken] if taken else []
    return [Problem(f"the keys {settings.key} belong to the read model {owner}", "", keys.taken_hint, ("key",))]


def readers_elsewhere(connection: Connection, settings: Settings, generation: int) -> None:
    """Returns None: all generations share the keys."""
