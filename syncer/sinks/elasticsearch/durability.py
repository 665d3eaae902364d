"""What the shards of an index remember, from the cluster's state and their statistics. No I/O.

A shard keeps the versions of deletes in the memory of its engine (`index.gc_deletes`), so whatever opens
another engine forgets them: a restart, a failover, a relocation, closing and opening the index. All but the
relocation raise the primary's term; that one gives the copy another allocation id. What was acknowledged
stays, unless an operator forces a stale copy to be the primary or restores a snapshot: then the shard begins
another history.

Every write of a shard has a number. What is below the global checkpoint is in all its copies, so whichever
becomes the primary gives the next ones higher numbers.
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
    """Of the one index that both answers are about; None while one of its primaries is not there."""
    [metadata], [table] = (state[part]["indices"].values() for part in ("metadata", "routing_table"))
    deletes = [metadata["settings"]["index"]["uuid"]]
    documents = list(deletes)
    written = []
    [shards] = [index["shards"] for index in stats.get("indices", {}).values()] or [{}]
    for number, term in sorted(metadata["primary_terms"].items()):
        copies = [copy for copy in table["shards"][number] if copy["primary"] and copy["state"] in _ACTIVE]
        primaries = [copy for copy in shards.get(number, ()) if copy["routing"]["primary"]]
        if not copies or not primaries:
            return None
        deletes.append(f"{term}.{copies[0]['allocation_id']['id']}")
        documents.append(primaries[0]["commit"]["user_data"]["history_uuid"])
        written.append(primaries[0]["seq_no"]["global_checkpoint"])
    return DurabilityToken(" ".join(deletes), " ".join(documents), str(min(written)))
