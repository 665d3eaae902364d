"""Remembers merged states, so that a document with very many partials is not combined from all of them for each change.

The buckets of a document are divided into blocks. A change of one partial needs the other partials of its block, and
the merged states of all other blocks. They are in memory only. They depend on nothing but the partials that the sink
returned, and each partial is compared with the remembered one. So a document is the same with and without this memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from syncer.declaration.compiled import CombinedField
from syncer.declaration.partial_keys import ROOT
from syncer.pipeline.combine_states import State, merge
from syncer.ports import StoredPartial

_BLOCK = 64
"""The number of buckets in a block."""
_MOST = 100_000
"""The number of partials that are remembered, with about 300 bytes each."""
_ROOT = str(ROOT)

Parts = Mapping[str, StoredPartial]


@dataclass(frozen=True, slots=True)
class _Combined:
    """The partials of a document, and the merged states of its blocks by their number. Blocks without states are left
    out."""

    parts: Parts
    blocks: Mapping[int, State]


class CombinedBlocks:
    """The blocks of the documents that were combined last. Threads may share it. fields: of the read model.

    most: the number of partials that it remembers.
    """

    def __init__(self, fields: Sequence[CombinedField], most: int = _MOST) -> None:
        self._fields, self._most = fields, most
        self._lock = threading.Lock()
        self._found: OrderedDict[str, _Combined] = OrderedDict()
        """By document id. The document that was combined last is at the end."""
        self._size = 0
        """The number of partials in `_found`."""

    def states(self, id: str, parts: Parts) -> Sequence[State]:
        """Returns states for `combine_states.assemble`: those of all buckets, or those of all blocks of many buckets.

        id: of the document. parts: all its partials.
        """
        if len(parts) <= 2 * _BLOCK:
            buckets = sorted((int(bucket), part.body) for bucket, part in parts.items() if bucket != _ROOT)
            return [orjson.loads(body) for _, body in buckets if body is not None]
        with self._lock:
            before = self._found.get(id)
        # A copy: the sink may change its mapping later.
        blocks = self._blocks(before, now := dict(parts))
        self._remember(id, _Combined(now, blocks))
        return [blocks[number] for number in sorted(blocks)]

    def _blocks(self, before: _Combined | None, parts: Parts) -> Mapping[int, State]:
        known, blocks = (before.parts, dict(before.blocks)) if before else ({}, {})
        changed = [bucket for bucket, part in parts.items() if known.get(bucket) != part]
        changed += known.keys() - parts.keys()
        for number in {int(bucket) // _BLOCK for bucket in changed if bucket != _ROOT}:
            if states := self._states(number, parts):
                blocks[number] = merge(self._fields, states)
            else:
                blocks.pop(number, None)
        return blocks

    def _states(self, number: int, parts: Parts) -> Sequence[State]:
        """Returns the states of the buckets of a block, in their order."""
        names = [str(bucket) for bucket in range(number * _BLOCK, (number + 1) * _BLOCK)]
        found = [parts[name].body for name in names if name in parts and name != _ROOT]
        return [orjson.loads(body) for body in found if body is not None]

    def _remember(self, id: str, combined: _Combined) -> None:
        with self._lock:
            before = self._found.pop(id, None)
            self._found[id] = combined
            self._size += len(combined.parts) - (len(before.parts) if before else 0)
            while self._size > self._most:
                _, oldest = self._found.popitem(last=False)
                self._size -= len(oldest.parts)
