"""Asks Redis whether it would take documents, by writes that change nothing."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from syncer.errors import Retry
from syncer.sinks.problem import Problem
from syncer.sinks.redis.cluster import FAILURES, Servers
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.script import classify_error


def validate(servers: Servers, pattern: str, as_hash: bool, model: str, where: str) -> list[Problem]:
    """What the server is certain to refuse: keys or commands that its user may not use, keys that belong to
    another read model. Raises Retry when it does not answer.

    The keys are of an id that no row has; they are not there, so SET … XX, DEL and EXPIRE do nothing.
    """
    keys = Keys(pattern)
    key = keys.document(f"syncer-check-{uuid.uuid4().hex}")
    mark, meta = keys.version(key), f"syncer:meta:{pattern}"
    document: list[Any] = ["HDEL", key, "x"] if as_hash else ["SET", key, "", "XX"]
    commands: list[list[Any]] = [
        ["GET", mark],
        ["TYPE", key],
        ["SET", mark, "", "XX"],
        ["DEL", key],
        ["EXPIRE", key, 1],
        document,
        ["GET", meta],
    ]
    try:
        client: Any = servers.client()
        answers = [client.execute_command(*command) for command in commands]
    except FAILURES as error:
        refused = classify_error(error, "Redis refuses to write", where)
        if isinstance(refused, Retry):
            raise refused from error
        return [Problem(refused.what, refused.why, refused.hint, ("key",))]
    owner = orjson.loads(answers[-1])["model"] if answers[-1] else model
    if owner == model:
        return []
    hint = f"choose another key; if that read model is no more: redis-cli DEL '{meta}'"
    return [Problem(f"the keys {pattern} belong to the read model {owner}", hint=hint, block=("key",))]
