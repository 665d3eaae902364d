"""Runs the Redis sink with a changed script: one with a weaker rule, or one that fails before a given write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from unittest.mock import patch

from syncer.sinks.redis import calls, sink

_CUT = """
local real, left = redis, %d
local writes = {SET = 1, ZADD = 1, SADD = 1, ZREM = 1, SREM = 1, DEL = 1, HSET = 1, EXPIRE = 1}
local function guarded(call)
  return function(name, ...)
    if writes[name] then
      if left == 0 then error('cut') end
      left = left - 1
    end
    return call(name, ...)
  end
end
local redis = {call = guarded(real.call), pcall = guarded(real.pcall)}
"""


def digest(text: str) -> str:
    """Returns the name under which a server knows a script."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@contextmanager
def script(text: str) -> Iterator[None]:
    """Replaces the script of all sinks in the block."""
    with patch.object(calls, "_SHA", digest(text)), patch.object(sink, "SCRIPT", text):
        yield


def cut(text: str, writes: int) -> str:
    """Returns the script with an error after this number of writes. Redis keeps the writes before the error."""
    return _CUT % writes + text


def weaker(**rules: str) -> str:
    """Returns the script with each text of the values, as `old → new`, replaced. Names are for the reader."""
    text = calls.SCRIPT
    for rule in rules.values():
        old, new = rule.split(" → ")
        assert old in text, old
        text = text.replace(old, new)
    return text


WEAKER = {
    "ZADD GT is the fence": weaker(
        none="elseif current and current >= version then → elseif false then",
        fence="redis.call('ZADD', place[2], place[4], → redis.call('ZADD', place[2], 'GT', place[4],",
    ),
    "ZADD GT in addition to the version": weaker(
        fence="redis.call('ZADD', place[2], place[4], → redis.call('ZADD', place[2], 'GT', place[4],"
    ),
    "the pointer shrinks before the old places are cleaned": weaker(
        shrink="redis.call('SET', mark, text_of(head, all)) → redis.call('SET', mark, text_of(head, new))"
    ),
    "the pointer grows after the members are added": weaker(
        before="if #all > #old then redis.call('SET', mark, text_of(head, all)) end → ",
    ),
    "the version is new before the members are moved": weaker(
        version="(current or string.rep('0', 20)) .. owner, old → version .. owner, old"
    ),
    "a delete leaves the members": weaker(delete="    move(mark, nil, old, new)\n → "),
    "a pointer that grows keeps the expiry of a delete": weaker(
        expiry="redis.call('SET', mark, text_of(head, all)) → redis.call('SET', mark, text_of(head, all), 'KEEPTTL')"
    ),
    "versions are compared as numbers": weaker(
        numbers="current >= version → tonumber(current) % 4 >= tonumber(version) % 4"
    ),
}
"""Scripts with weaker rules. The generated histories on real servers and the simulation have to detect each of them."""
