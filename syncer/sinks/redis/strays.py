"""Finds members that no pointer lists, and adds their places to the pointers.

A pointer misses a place if a program edited the pointer, or added a member by hand. The syncer would then never remove
the member. After the place was added, `read` shows it as wrong, and the next write of the document repairs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import islice

import redis

from syncer.sinks.redis.cluster import Servers, pipeline, values
from syncer.sinks.redis.indexes import Index
from syncer.sinks.redis.keys import Keys, slot
from syncer.sinks.redis.record import parse

SCRIPT = resources.files(__package__).joinpath("adopt.lua").read_text("utf-8")
_PAGE = 500


def adopt(servers: Servers, keys: Keys, indexes: Sequence[Index], *, clustered: bool) -> int:
    """Reads all members of all keys of the indexes. Returns how many places were added. Raises FAILURES."""
    added = 0
    for node in servers.each():
        for index in indexes:
            members = _members(node, index)
            while page := list(islice(members, _PAGE)):
                marked = [(keys.version(keys.document(id)), key, member) for key, member, id in page]
                # On a cluster, the syncer writes no member in another slot.
                added += _adopt(
                    node, keys, index, [one for one in marked if not clustered or slot(one[0]) == slot(one[1])]
                )
    return added


def _members(node: redis.Redis, index: Index) -> Iterator[tuple[str, str, str]]:
    """Yields key, member and id of the members on one server. A member may come twice."""
    for raw in node.scan_iter(match=index.key.glob, count=2000, _type=index.kind):
        key = raw.decode(errors="replace")
        if key.encode() != raw or not index.key.matches(key):
            continue
        found = node.zscan_iter(raw, count=1000) if index.kind == "zset" else node.sscan_iter(raw, count=1000)
        for one in found:
            text = one[0] if isinstance(one, tuple) else one
            member = text.decode(errors="replace")
            if member.encode() == text and (id := index.id_of(member)) is not None:
                yield key, member, id


def _adopt(node: redis.Redis, keys: Keys, index: Index, page: Sequence[tuple[str, str, str]]) -> int:
    """page: version key, key and member of each."""
    commands = []
    texts = values(pipeline(node, [["GET", mark] for mark, _, _ in page]))
    for (mark, key, member), text in zip(page, texts, strict=True):
        record = parse(text, keys.owner)
        if record is None or (index.kind, key, member) not in [place[:3] for place in record.places]:
            commands.append(["EVAL", SCRIPT, 2, mark, key, keys.owner, index.kind, member])
    return sum(value or 0 for value in values(pipeline(node, commands)))
