"""Classifies the errors of the Redis client: which are retried, and which need an operator. No I/O."""

from __future__ import annotations

from redis import exceptions

from syncer import tls
from syncer.errors import Fatal, Retry, SyncerError

CREDENTIALS = "check redis.username and password in the configuration, and the user's permissions (ACL)"
_HINTS = {
    "OOM": "raise maxmemory (redis-cli CONFIG SET maxmemory …); nothing is lost meanwhile",
    "MISCONF": "Redis cannot save to its disk; see the log of Redis",
}
_RETRIED_CODES = ("LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY", "NOREPLICAS", "MOVED", "ASK")
_RETRIED_TYPES = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.ReadOnlyError,
    exceptions.NoScriptError,  # the server failed over after the script was loaded
    exceptions.OutOfMemoryError,
)
_MOVING = "non local key"
"""A script on a cluster named a key of a slot that is moving. The script has stopped in between."""
_DENIED_TYPES = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_DENIED_TEXTS = (
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "invalid username-password",
    "invalid password",
    "no permissions",
)


def classify_error(error: Exception, what: str, where: str) -> SyncerError:
    """Returns the syncer's error for an error of the client. what, where: as in `SyncerError`.

    Denied access comes first, because the client raises it as a connection error too.
    """
    if isinstance(error, SyncerError):
        return error
    text = str(error)
    if isinstance(error, _DENIED_TYPES) or any(word in text for word in _DENIED_TEXTS):
        return Fatal(what, where=where, why=text, hint=CREDENTIALS)
    if tls.is_untrusted(text):
        return Fatal(what, where=where, why=text, hint=tls.advice("redis.ca_file"))
    code = "OOM" if isinstance(error, exceptions.OutOfMemoryError) else text.partition(" ")[0]
    if isinstance(error, _RETRIED_TYPES) or code in _HINTS or code in _RETRIED_CODES or _MOVING in text:
        up = "check that Redis is up and redis.url is correct" if _unreachable(error) else ""
        return Retry(what, where=where, why=text, hint=_HINTS.get(code, up))
    return Fatal(what, where=where, why=text)


def _unreachable(error: Exception) -> bool:
    """Returns whether no server answered. A server that answers LOADING, READONLY and the like is up."""
    kinds = (exceptions.ConnectionError, exceptions.TimeoutError)
    return isinstance(error, kinds) and not isinstance(error, exceptions.BusyLoadingError)
