"""The one script that writes to Redis, and what its answers and errors mean. No I/O.

For each document the script compares versions and writes in one step. Versions are zero-padded text: Lua's
numbers lose integers above 2^53. The document is written before its version: should the second of the two
fail, the next attempt writes both, instead of taking the document for written.

A version key holds `VERSION OWNER` for a document of ours, `VERSION OWNER deleted` for a delete. The owner is
the key pattern (`Keys.owner`): patterns overlap, as `p:{id}` and `p:{id}:summary` do, and the application has
keys beside ours. What the version key does not call a document of ours is never removed.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from redis import exceptions

from syncer import tls
from syncer.errors import Fatal, Retry, SyncerError
from syncer.sinks.problem import Problem

# KEYS: a document and its version, in turn.
# ARGV: version, seconds until the document expires (0: never), seconds until its version does, seconds that a
# delete is remembered, TYPE of a document, owner; then for each document the number of its values (-1:
# delete) and the values: one text, or fields and values in turn.
# Answers, one a document: "w" written, "d" deleted, "!…" what is there is not ours, or the version that is
# there. No answer depends on the order of digits: they are all 20 long.
SCRIPT = """
local version, expire, keep = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local tombstone, kind, owner = ARGV[4], ARGV[5], ' ' .. ARGV[6]
local live, deleted = version .. owner, version .. owner .. ' deleted'
local out, at = {}, 7

local function write(key, first, last)
  if kind == 'string' then
    if expire > 0 then redis.call('SET', key, ARGV[first], 'EX', expire)
    else redis.call('SET', key, ARGV[first]) end
    return
  end
  redis.call('DEL', key)
  for from = first, last, 4000 do
    redis.call('HSET', key, unpack(ARGV, from, math.min(from + 3999, last)))
  end
  if expire > 0 then redis.call('EXPIRE', key, expire) end
end

for i = 1, #KEYS, 2 do
  local key, mark, n = KEYS[i], KEYS[i + 1], tonumber(ARGV[at])
  local first, last = at + 1, at + math.max(n, 0)
  at = last + 1
  local text, current, rest, foreign = redis.pcall('GET', mark), nil, nil, nil
  if type(text) == 'string' then current, rest = string.match(text, '^(%d+)(.*)$') end
  local ours = rest == owner
  if text and not ours and rest ~= owner .. ' deleted' then
    foreign = mark
  elseif not ours and n >= 0 then
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= kind then foreign = key .. ' (a ' .. found .. ')' end
  end
  if foreign then out[#out + 1] = '!' .. foreign
  elseif current and current >= version then out[#out + 1] = current
  elseif n < 0 then
    if ours then redis.call('DEL', key) end
    redis.call('SET', mark, deleted, 'EX', tombstone)
    out[#out + 1] = 'd'
  else
    write(key, first, last)
    if keep > 0 then redis.call('SET', mark, live, 'EX', keep) else redis.call('SET', mark, live) end
    out[#out + 1] = 'w'
  end
end
return out
"""


def flat(body: bytes) -> dict[str, str]:
    """A document as a hash: exact texts of its values, nulls left out.

    Raises ValueError for a document that has no such form.
    """
    document = json.loads(body, parse_float=str, parse_int=str)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    out = {}
    for name, value in document.items():
        if isinstance(value, bool):
            out[name] = "true" if value else "false"
        elif isinstance(value, str):
            out[name] = value
        elif value is not None:
            raise ValueError(f"{name}: a hash cannot hold a list or an object; use format json")
    return out


def flat_json(fields: dict[str, str]) -> bytes | None:
    """A hash as JSON text, in one way only; None for one without fields, which Redis does not keep."""
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) if fields else None


CREDENTIALS = "redis.username and password in the configuration, and the user's permissions (ACL)"
_HINTS = {
    "OOM": "raise maxmemory (redis-cli CONFIG SET maxmemory …); nothing is lost meanwhile",
    "MISCONF": "Redis cannot save to its disk; see its log",
}
_WAIT = ("LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY", "NOREPLICAS", "MOVED", "ASK")
_WAIT_TYPES = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
)
_SIGN_IN = (
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "invalid username-password",
    "invalid password",
    "no permissions",
)


def classify_error(error: Exception, what: str, where: str) -> SyncerError:
    """Which kind of error this is; sign-in first, as the client calls that a connection error too."""
    if isinstance(error, SyncerError):
        return error
    text = str(error)
    denied = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
    if isinstance(error, denied) or any(word in text for word in _SIGN_IN):
        return Fatal(what, where=where, why=text, hint=CREDENTIALS)
    if tls.distrusted(text):
        return Fatal(what, where=where, why=text, hint=tls.advice("redis.ca_file"))
    code = "OOM" if isinstance(error, exceptions.OutOfMemoryError) else text.partition(" ")[0]
    if isinstance(error, _WAIT_TYPES) or code in _HINTS or code in _WAIT:
        up = "is it up? see redis.url in the configuration" if _unreachable(error) else ""
        return Retry(what, where=where, why=text, hint=_HINTS.get(code, up))
    return Fatal(what, where=where, why=text)


def _unreachable(error: Exception) -> bool:
    """A server that answers with a state of its own (LOADING, READONLY, …) is up."""
    kinds = (exceptions.ConnectionError, exceptions.TimeoutError)
    return isinstance(error, kinds) and not isinstance(error, exceptions.BusyLoadingError)


_NESTED = frozenset(("object", "json", "jsonb", "array", "composite", "hstore", "geojson", "geojson point"))


def nested_fields(fields: Any) -> list[Problem]:
    """Why a hash cannot hold documents of these fields (`compile.Field`)."""
    found = []
    for field in fields:
        if field.many or field.type in _NESTED:
            what = "a list" if field.many else "an object" if field.type == "object" else field.type
            text = f"format: a hash cannot hold {field.name}, which is {what}; use format: json"
            found.append(Problem(text, field=(field.name,)))
    return found
