"""Weaker rules about the indexes of the Redis sink (`sinks/redis/write.lua`, `sinks/redis/strays.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import redis

from syncer.sinks.redis import calls, sink, strays
from syncer.sinks.redis.cluster import pipeline, values
from syncer.sinks.redis.indexes import Index
from syncer.sinks.redis.keys import Keys
from syncer.sinks.redis.record import parse
from tests.harness.redis_script import WEAKER, digest, weaker
from tests.simulation.weaker.rule import Weaker


def _reads_then_writes(node: redis.Redis, keys: Keys, index: Index, page: Sequence[tuple[str, str, str]]) -> int:
    """Writes the pointer that it has read, instead of the one that the server has now."""
    added = 0
    for mark, key, member in page:
        [text] = values(pipeline(node, [["GET", mark]]))
        record = parse(text, keys.owner)
        places = [list(filter(None, place)) for place in record.places] if record else []
        if [index.kind, key, member] not in [place[:3] for place in places]:
            head = text.partition(b"\n")[0] if text else f"{0:020d} {keys.owner} deleted".encode()
            pointer = orjson.dumps([*places, [index.kind, key, member, "stray"]])
            list(values(pipeline(node, [["SET", mark, head + b"\n" + pointer]])))
            added += 1
    return added


_CHECK = "then return 0 end\nelseif redis.call('SISMEMBER'"
_WITHOUT_CHECK = strays.SCRIPT.replace(_CHECK, _CHECK.replace("return 0 ", ""))
"""Does not check that the member of a sorted set is still there."""


def _boards(wrong: str, patches: Mapping[tuple[Any, str], Any], first: int = 0) -> Weaker:
    return Weaker(wrong, patches, model="boards", first=first)


def _script(wrong: str, text: str, first: int = 0) -> Weaker:
    return _boards(wrong, {(calls, "_SHA"): digest(text), (sink, "SCRIPT"): text}, first)


RULES = {
    "indexes: the version check is lost": _script(
        "a late write of an older snapshot moves the members back",
        weaker(none="elseif current and current >= version then → elseif false then"),
    ),
    "indexes: ZADD GT is the fence": _script(
        "a late write moves the document back, and the score of a newer one is not written if it is lower",
        WEAKER["ZADD GT is the fence"],
    ),
    "indexes: ZADD GT in addition to the version": _script(
        "a score that falls is not written",
        WEAKER["ZADD GT in addition to the version"],
    ),
    "indexes: the pointer shrinks before the old places are cleaned": _script(
        "the script fails before it has removed the old members, and the next attempt does not find them",
        WEAKER["the pointer shrinks before the old places are cleaned"],
    ),
    "indexes: the pointer grows after the members are added": _script(
        "the script fails between the two, and the row moves on before the next attempt",
        WEAKER["the pointer grows after the members are added"],
    ),
    "indexes: the version is new before the members are moved": _script(
        "the script fails in between, and the next attempt has the same version",
        WEAKER["the version is new before the members are moved"],
    ),
    "indexes: a delete leaves the members": _script(
        "the members of a deleted document stay",
        WEAKER["a delete leaves the members"],
    ),
    "indexes: a pointer that grows keeps the expiry of a delete": _script(
        "the pointer expires if the next attempt comes later, and its members stay",
        WEAKER["a pointer that grows keeps the expiry of a delete"],
        first=200,
    ),
    "indexes: verify takes a member for a stray that has moved": _boards(
        "between the list of the members and the pointer, a write has moved the member",
        {(strays, "SCRIPT"): _WITHOUT_CHECK},
    ),
    "indexes: verify writes the pointer that it has read": _boards(
        "a write has changed the pointer meanwhile, and the members that it added are in no pointer",
        {(strays, "_adopt"): _reads_then_writes},
    ),
}
