"""Reads the durability token of Redis: the identities of its servers, and marks that the syncer left in the keys.

Redis loses acknowledged writes in a failover, a restart, a flush or an eviction. Each of them changes the run id or
the replication id of a server, the number of its evicted keys, or a mark.

A server that was demoted and promoted again keeps its run id but has another replication id. The replication id also
changes when a server gets its first replica. Then everything is rendered although nothing was lost.
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
    """Returns the token, and creates missing marks.

    marks: the keys of the marks. where: the sink's name. Raises FAILURES, and Fatal as `server_identity` does.
    """
    identities = sorted(server_identity(node, where) for node in servers.each())
    found = dict(_marks(servers, marks, os.urandom(8).hex()))
    return DurabilityToken("", " ".join([*identities, *(found[key] for key in sorted(found))]))


def server_identity(node: redis.Redis, where: str) -> str:
    """Returns a text that changes when the server restarts, fails over or evicts keys.

    Raises ReadOnlyError for a replica, and Fatal for a server that is allowed to evict.
    """
    info: Any = node.info()
    if info["role"] != "master":
        raise redis.ReadOnlyError("it is a replica")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        raise Fatal(
            "Redis may evict documents and tombstones of deletes",
            where=where,
            why=f"maxmemory-policy is {policy}",
            hint="redis-cli CONFIG SET maxmemory-policy noeviction",
        )
    return f"{info['run_id']}.{info['master_replid']}.{info['evicted_keys']}"


def _marks(servers: Servers, wanted: Iterable[str], fresh: str) -> Iterator[tuple[str, str]]:
    """Yields each mark and its text. fresh: the text of a mark that is missing."""
    for node, groups in servers.owners(wanted, str):
        keys = [key for group in groups for key in group]
        pipeline(node, [["SET", key, fresh, "NX"] for key in keys])
        for key, mark in zip(keys, values(pipeline(node, [["GET", key] for key in keys])), strict=True):
            yield key, mark.decode() if mark else ""
