"""Writes documents to Redis: one key per document, its version in a second key of the same slot, and indexes.

settings     the two YAML blocks
indexes      the blocks of `indexes`, and their mistakes
patterns     key patterns with placeholders
checks       the checks for `syncer check`
claims       which read model the keys of an index belong to
sink         the sink, which writes
reader       its other half, which reads
calls        a batch as calls of the script `write.lua`
places       the members that a document has in sets and sorted sets
record       the text of a version key, with the pointer to all members
strays       members that no pointer lists
keys         the names of the keys
hash_format  documents as hashes
cluster      one server, or the primaries of a cluster
durability   whether acknowledged writes were lost
watermarks   the watermark, where applications find it
errors       which errors are retried
"""

from syncer.sinks.redis.checks import (
    TARGET_HINT,
    derived,
    limits,
    overlap,
    preflight,
    readers_elsewhere,
    target,
    trial,
    validate,
)
from syncer.sinks.redis.settings import Connection, Settings
from syncer.sinks.redis.sink import SINK
from syncer.sinks.redis.watermarks import published, publishing_problems

__all__ = [
    "SINK",
    "TARGET_HINT",
    "Connection",
    "Settings",
    "derived",
    "limits",
    "overlap",
    "preflight",
    "published",
    "publishing_problems",
    "readers_elsewhere",
    "target",
    "trial",
    "validate",
]
