"""Remembers merged states, so that a document with very many partials is not combined from all of them for each change.

The buckets of a document are sorted and cut into blocks. A change of one partial needs the other partials of its block,
and the merged states of all other blocks. They are in memory only. They depend on nothing but the partials that the
sink returned, and every partial is compared with the remembered one. So a document is the same with and without this
memory.

A new bucket at the end changes the last block only. A new bucket in the middle moves the borders of all later blocks,
so they are merged again, once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import orjson
from cachetools import LRUCache

from syncer.declaration.compiled import CombinedField
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.pipeline.combine_states import State, merge
from syncer.ports import StoredPartial

_BLOCK = 64
"""The number of buckets in a block."""
_MOST_BYTES = 32 << 20
_OVERHEAD = 250
"""The approximate memory of a partial without its body, in bytes."""


@dataclass(frozen=True, slots=True)
class _Combined:
    """A document as it was combined last.

    buckets: with states, in their order. bodies: of these buckets. states: the merged state of each block.
    size: the approximate memory, in bytes.
    """

    buckets: Sequence[str]
    bodies: Sequence[bytes]
    states: Sequence[State]
    size: int


class CombinedBlocks:
    """The blocks of the documents that were combined last. Threads may share it.

    fields: of the read model. most_bytes: the memory for all documents. A document that needs more than half of it is
    not remembered.
    """

    def __init__(self, fields: Sequence[CombinedField], most_bytes: int = _MOST_BYTES) -> None:
        self._fields = fields
        self._lock = threading.Lock()
        self._found: LRUCache[str, _Combined] = LRUCache(most_bytes, lambda one: one.size)
        """By document id."""

    def states(self, id: str, parts: Mapping[str, StoredPartial]) -> Sequence[State]:
        """Returns states for `combine_states.assemble`: those of all buckets, or those of all blocks of many buckets.

        id: of the document. parts: all its partials.
        """
        bodies = {name: part.body for name, part in parts.items() if part.body is not None and name != ROOT_PARTIAL}
        if len(bodies) <= 2 * _BLOCK:
            return [orjson.loads(bodies[bucket]) for bucket in sorted(bodies, key=int)]
        with self._lock:
            before = self._found.get(id)
        combined = self._combine(before, bodies)
        self._remember(id, combined)
        return combined.states

    def _combine(self, before: _Combined | None, found: Mapping[str, bytes]) -> _Combined:
        """Returns the document of these bodies by bucket. Takes from the one before it the blocks that are the same."""
        if before and len(before.buckets) == len(found) and all(map(found.__contains__, before.buckets)):
            buckets = before.buckets
        else:
            buckets = sorted(found, key=int)
        bodies = list(map(found.__getitem__, buckets))
        states: list[State] = []
        for number, start in enumerate(range(0, len(buckets), _BLOCK)):
            block = slice(start, start + _BLOCK)
            if before and before.buckets[block] == buckets[block] and before.bodies[block] == bodies[block]:
                states.append(before.states[number])
            else:
                states.append(merge(self._fields, list(map(orjson.loads, bodies[block]))))
        texts = chain(bodies, *states)
        return _Combined(buckets, bodies, states, _OVERHEAD * len(buckets) + sum(len(text) for text in texts if text))

    def _remember(self, id: str, combined: _Combined) -> None:
        with self._lock:
            self._found.pop(id, None)
            if combined.size <= self._found.maxsize // 2:
                self._found[id] = combined
