"""A Redis server: the commands that the sink and its scripts use. The scripts of the sink run unchanged, in Lua 5.1.

The model has:

- scripts that run as one atomic step, but may end halfway with an error. Redis keeps the writes before the error;
- keys that expire;
- a failover, which loses the last commands. A script is lost as a whole, because replicas get it as one transaction;
- scripts that the server has forgotten (NOSCRIPT).

Which commands of a script can fail after a write? Those on keys that the script does not declare, if the slot of these
keys is moving to another server. And those for which the user has no permission. Memory, disk and replicas are checked
only before the first write. So the model lets a script fail before any write, with the error of a moving slot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import orjson
import redis
from lupa import lua51
from redis.exceptions import NoScriptError

from tests.simulation.scheduler import Scheduler

Value = str | dict[str, Any] | set[str]
Undo = dict[str, tuple[Value | None, float | None]]

MOVING = "Script attempted to access a non local key in a cluster node"
_WRITES = frozenset(("SET", "DEL", "HSET", "EXPIRE", "PERSIST", "ZADD", "ZREM", "SADD", "SREM"))
_KEPT = 6
"""The number of commands that a failover can lose."""

_lua = lua51.LuaRuntime(encoding="utf-8")
_load = cache(lambda text: _lua.eval(f"function(redis, cjson, KEYS, ARGV) {text}\nend"))
_bind = _lua.eval(
    """function(run, call, encode, decode)
  local redis, cjson = {}, {encode = encode, decode = decode}
  function redis.call(...)
    local answer = call(...)
    if type(answer) == 'table' and answer.err then error(answer.err, 0) end
    return answer
  end
  redis.pcall = call
  return function(KEYS, ARGV) return run(redis, cjson, KEYS, ARGV) end
end"""
)


class RedisServer:
    """One server."""

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        self.name, self._scheduler = name, scheduler
        self.values: dict[str, Value] = {}
        self.expires: dict[str, float] = {}
        self.run_id = 1
        """Changes with each failover."""
        self._scripts: dict[str, Any] = {}
        self._left: int | None = None
        """The number of writes after which the running script fails. None: it does not fail."""
        self._undo: list[Undo] = []
        self._changed: Undo = {}

    # -- what a client sends ------------------------------------------------------------------------

    def execute(self, name: str, *given: Any, fails_after: int | None = None) -> Any:
        """Executes one command. Returns its answer, with bytes for texts. Raises ResponseError.

        fails_after: the number of writes after which a script fails.
        """
        arguments = [one.decode() if isinstance(one, bytes) else str(one) for one in given]
        with self._recorded():
            if name == "EVALSHA":
                return self._run(self._known(arguments[0]), arguments[1:], fails_after)
            if name == "EVAL":
                return self._run(self._script(arguments[0]), arguments[1:], fails_after)
            return _answer(self.command(name, *arguments))

    def load(self, text: str) -> None:
        """SCRIPT LOAD."""
        self._script(text)

    def members(self, key: str) -> list[tuple[str, Any]]:
        """Returns what ZSCAN or SSCAN finds: each member with its score, or with None in a set."""
        value = self._value(key)
        return list(value.items()) if isinstance(value, dict) else [(member, None) for member in value or ()]

    def keys(self, pattern: str, kind: str) -> list[str]:
        """Returns what SCAN finds. kind: TYPE of the keys."""
        return [key for key in list(self.values) if fnmatchcase(key, pattern) and self.type(key) == kind]

    def settle(self) -> None:
        """From now on, no failover loses what was written before."""
        self._undo.clear()

    def expiring(self) -> list[str]:
        """Returns the keys that the last command has changed and that expire, as long as they hold texts."""
        return [key for key in self._changed if key in self.expires and isinstance(self.values.get(key), str)]

    # -- faults -------------------------------------------------------------------------------------

    def fail_over(self, lost: int) -> None:
        """Continues on a replica that lacks the last commands."""
        for _ in range(min(lost, len(self._undo))):
            for key, (value, expires) in self._undo.pop().items():
                self._restore(key, value, expires)
        self._scripts.clear()
        self.run_id += 1

    # -- commands -----------------------------------------------------------------------------------

    def command(self, name: str, *given: str) -> Any:
        if name in _WRITES:
            if self._left is not None:
                if self._left == 0:
                    raise redis.ResponseError(MOVING)
                self._left -= 1
            self._remember(given[0])
        answer = getattr(self, "delete" if name == "DEL" else name.lower())(*given)
        if name in _WRITES and self.values.get(given[0]) in ({}, set()):
            self._restore(given[0], None, None)
        return answer

    def type(self, key: str) -> str:
        kinds: dict[type, str] = {str: "string", set: "set", dict: "hash"}
        value = self._value(key)
        if isinstance(value, dict) and all(isinstance(one, float) for one in value.values()):
            return "zset"
        return "none" if value is None else kinds[type(value)]

    def get(self, key: str) -> Any:
        return self._of(key, "string")

    def mget(self, *keys: str) -> list[Any]:
        return [self.get(key) if self.type(key) == "string" else None for key in keys]

    def set(self, key: str, text: str, *options: str) -> Any:
        if "NX" in options and self._value(key) is not None:
            return None
        self.values[key] = text
        if "EX" in options:
            self.expires[key] = self._scheduler.now + int(options[options.index("EX") + 1])
        elif "KEEPTTL" not in options:
            self.expires.pop(key, None)
        return "OK"

    def delete(self, key: str) -> int:
        return int(self.values.pop(key, None) is not None)

    def expire(self, key: str, seconds: str) -> int:
        self.expires[key] = self._scheduler.now + int(seconds)
        return 1

    def persist(self, key: str) -> int:
        return int(self.expires.pop(key, None) is not None)

    def hset(self, key: str, *pairs: str) -> int:
        found = self._of(key, "hash", {})
        found.update(zip(pairs[::2], pairs[1::2], strict=True))
        self.values[key] = found
        return 1

    def hget(self, key: str, name: str) -> Any:
        return self._of(key, "hash", {}).get(name)

    def hlen(self, key: str) -> int:
        return len(self._of(key, "hash", {}))

    def hgetall(self, key: str) -> dict[str, str]:
        return dict(self._of(key, "hash", {}))

    def zadd(self, key: str, *given: str) -> int:
        found = self._of(key, "zset", {})
        score, member = float(given[-2]), given[-1]
        if not ("GT" in given[:-2] and member in found and found[member] >= score):
            found[member] = score
        self.values[key] = found
        return 1

    def zrem(self, key: str, member: str) -> int:
        return int(self._of(key, "zset", {}).pop(member, None) is not None)

    def zscore(self, key: str, member: str) -> Any:
        return self._of(key, "zset", {}).get(member)

    def sadd(self, key: str, member: str) -> int:
        found = self._of(key, "set", set())
        found.add(member)
        self.values[key] = found
        return 1

    def srem(self, key: str, member: str) -> int:
        found = self._of(key, "set", set())
        before = len(found)
        found.discard(member)
        return before - len(found)

    def sismember(self, key: str, member: str) -> int:
        return int(member in self._of(key, "set", set()))

    # -- inside -------------------------------------------------------------------------------------

    def _value(self, key: str) -> Value | None:
        if key in self.expires and self._scheduler.now >= self.expires[key]:
            self._restore(key, None, None)
        return self.values.get(key)

    def _of(self, key: str, kind: str, missing: Any = None) -> Any:
        value = self._value(key)
        if value is None:
            return missing
        if self.type(key) != kind:
            raise redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _restore(self, key: str, value: Value | None, expires: float | None) -> None:
        self.values.pop(key, None)
        self.expires.pop(key, None)
        if value is not None:
            self.values[key] = value
        if expires is not None:
            self.expires[key] = expires

    def _remember(self, key: str) -> None:
        if key not in self._changed:
            value = self._value(key)
            self._changed[key] = (value if isinstance(value, str | None) else value.copy()), self.expires.get(key)

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        self._changed = {}
        try:
            yield
        finally:
            if self._changed:
                self._undo = [*self._undo[1 - _KEPT :], self._changed]

    def _known(self, sha: str) -> Any:
        if sha not in self._scripts:
            raise NoScriptError("No matching script")
        return self._scripts[sha]

    def _script(self, text: str) -> Any:
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        if sha not in self._scripts:
            self._scripts[sha] = _bind(_load(text), self._call, _encode, _decode)
        return self._scripts[sha]

    def _call(self, name: str, *given: Any) -> Any:
        """`redis.pcall` of a script."""
        try:
            answer = self.command(name, *[one if isinstance(one, str) else str(one) for one in given])
        except redis.ResponseError as error:
            return _lua.table_from({"err": str(error)})
        if name == "TYPE":
            return _lua.table_from({"ok": answer})
        if isinstance(answer, dict):  # a script gets fields and values in turn
            return _lua.table_from([text for pair in answer.items() for text in pair])
        return False if answer is None else answer

    def _run(self, script: Any, arguments: Sequence[str], fails_after: int | None) -> Any:
        count, self._left = int(arguments[0]), fails_after
        try:
            answer = script(_lua.table_from(arguments[1 : count + 1]), _lua.table_from(arguments[count + 1 :]))
        except lua51.LuaError as error:
            raise redis.ResponseError(str(error)) from error
        finally:
            self._left = None
        return _answer(_plain(answer))


def _answer(value: Any) -> Any:
    """Returns an answer as a client without `decode_responses` gets it."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return [_answer(one) for one in value]
    if isinstance(value, dict):
        return {_answer(name): _answer(one) for name, one in value.items()}
    return value


def _encode(value: Any) -> str:
    return orjson.dumps(_plain(value)).decode()


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value.values()] if lua51.lua_type(value) == "table" else value


def _decode(text: str) -> Any:
    return _lua.table_from(orjson.loads(text), recursive=True)
