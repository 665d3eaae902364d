"""What a Redis remembers hangs on: the lives of its servers, and marks that we leave among the keys.

Acknowledged writes are lost with a failover, a restart, a flush or an eviction. Each of them changes one of:
the run id or the replication id of a server, the number of its evicted keys, a mark. (A server that was
demoted and promoted again has its run id, but another replication id. That one changes also when a server is
given its first replica: then all is rendered for nothing.)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import redis

from syncer.errors import Fatal
from syncer.ports import DurabilityToken
from syncer.sinks.redis.cluster import Servers, pipeline, values


def durability(servers: Servers, marks: Iterable[str], where: str) -> DurabilityToken:
    """marks: their keys; made where there are none. Raises FAILURES, and Fatal as `life`."""
    lives = sorted(life(node, where) for node in servers.each())
    found = dict(_marks(servers, marks, os.urandom(8).hex()))
    return DurabilityToken("", " ".join([*lives, *(found[key] for key in sorted(found))]))


def life(node: redis.Redis, where: str) -> str:
    """Which life of which server this is. Raises Fatal when it is set up to evict."""
    info: Any = node.info()
    if info["role"] != "master":
        raise redis.ReadOnlyError("it is a replica")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        raise Fatal(
            "Redis may evict documents and the memory of deletes",
            where=where,
            why=f"maxmemory-policy is {policy}",
            hint="redis-cli CONFIG SET maxmemory-policy noeviction",
        )
    return f"{info['run_id']}.{info['master_replid']}.{info['evicted_keys']}"


def _marks(servers: Servers, wanted: Iterable[str], fresh: str) -> Iterator[tuple[str, str]]:
    for node, groups in servers.owners(wanted, str):
        keys = [key for group in groups for key in group]
        pipeline(node, [["SET", key, fresh, "NX"] for key in keys])
        for key, mark in zip(keys, values(pipeline(node, [["GET", key] for key in keys])), strict=True):
            yield key, mark.decode() if mark else ""
