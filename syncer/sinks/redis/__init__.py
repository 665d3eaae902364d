"""Writes documents to Redis: one key per document, and its version in a second key of the same slot.

settings     the two YAML blocks
checks       what `syncer check` asks
sink         the sink
calls        a batch as calls of the script `write.lua`
keys         the names of the keys
hash_format  documents as hashes
cluster      one server, or the primaries of a cluster
durability   whether acknowledged writes were lost
errors       which errors are retried
"""

from syncer.sinks.redis.checks import TARGET_HINT, derived, preflight, readers_elsewhere, target, trial, validate
from syncer.sinks.redis.settings import Connection, Settings
from syncer.sinks.redis.sink import SINK

__all__ = [
    "SINK",
    "TARGET_HINT",
    "Connection",
    "Settings",
    "derived",
    "preflight",
    "readers_elsewhere",
    "target",
    "trial",
    "validate",
]
