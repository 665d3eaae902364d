"""Computes the durability token of an index from the cluster's state and the statistics of its shards. No I/O.

A shard keeps the versions of deletes in the memory of its engine (`index.gc_deletes`). They are forgotten when another
engine is opened: in a restart, a failover, a relocation, or when the index is closed and opened. A relocation gives the
copy another allocation id. The other events raise the primary's term.

Acknowledged writes are lost only when an operator forces a stale copy to be the primary or restores a snapshot. Then
the shard begins another history.

Every write of a shard has a sequence number. Writes up to the global checkpoint are in all copies of the shard. So any
copy that becomes the primary gives later writes higher numbers.
"""

from __future__ import annotations

from typing import Any

from syncer.ports import DurabilityToken

Json = dict[str, Any]

STATE = (
    "?filter_path=metadata.indices.*.settings.index.uuid,metadata.indices.*.primary_terms"
    ",routing_table.indices.*.shards.*.primary,routing_table.indices.*.shards.*.state"
    ",routing_table.indices.*.shards.*.allocation_id.id"
)
STATS = (
    "?level=shards&filter_path=indices.*.shards.*.routing.primary"
    ",indices.*.shards.*.commit.user_data.history_uuid,indices.*.shards.*.seq_no.global_checkpoint"
)
_ACTIVE = ("STARTED", "RELOCATING")


def durability(state: Json, stats: Json) -> DurabilityToken | None:
    """Returns the token of the index, or None while one of its primary shards is not started.

    state, stats: the answers for the paths that end in STATE and STATS, both about one index.
    """
    [metadata], [table] = (state[part]["indices"].values() for part in ("metadata", "routing_table"))
    tombstones = [metadata["settings"]["index"]["uuid"]]
    documents = list(tombstones)
    written = []
    [shards] = [index["shards"] for index in stats.get("indices", {}).values()] or [{}]
    for number, term in sorted(metadata["primary_terms"].items()):
        copies = [copy for copy in table["shards"][number] if copy["primary"] and copy["state"] in _ACTIVE]
        primaries = [copy for copy in shards.get(number, ()) if copy["routing"]["primary"]]
        if not copies or not primaries:
            return None
        tombstones.append(f"{term}.{copies[0]['allocation_id']['id']}")
        documents.append(primaries[0]["commit"]["user_data"]["history_uuid"])
        written.append(primaries[0]["seq_no"]["global_checkpoint"])
    return DurabilityToken(" ".join(tombstones), " ".join(documents), str(min(written)))
