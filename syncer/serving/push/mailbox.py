"""The changes that wait for one client: at most one for each key. Pure.

A client that reads slowly receives the newest change of a key, and not the ones in between. So a mailbox holds a
limited number of keys and bytes. Beyond that it overflows, and the client has to fetch the documents again.

Everything before `offsets` was taken, or is replaced by a change behind it. So a client that has received what was
taken can resume there. A change that replaces another one keeps its place, and the offset of the first one. Otherwise
a key that changes often would wait forever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from syncer.serving.push.change import Change, Op


class Pending(NamedTuple):
    change: Change
    op: Op
    since: int
    """The offset of the oldest change of this key that was not taken."""
    size: int


class Mailbox:
    """Bounded by the number of keys and by bytes."""

    def __init__(self, max_keys: int, max_bytes: int, *, documents: bool) -> None:
        """documents: whether the client receives documents. Otherwise their size does not count."""
        self._max_keys, self._max_bytes, self._documents = max_keys, max_bytes, documents
        self._pending: dict[int, dict[str, Pending]] = {}
        """By partition and key, in the order in which they are taken. So `since` rises within a partition."""
        self._keys = self._bytes = self._conflated = 0
        self.overflowed = False

    def __len__(self) -> int:
        return self._keys

    @property
    def half_full(self) -> bool:
        return self._keys * 2 >= self._max_keys or self._bytes * 2 >= self._max_bytes

    def put(self, change: Change, op: Op) -> None:
        """Adds a change, or replaces an older one of the same key. Does nothing after an overflow."""
        if self.overflowed:
            return
        keys = self._pending.setdefault(change.partition, {})
        before, size = keys.get(change.key), change.size(op, documents=self._documents)
        since = change.offset
        if before is not None:
            if before.change.version > change.version:
                return
            since = before.since
            self._conflated += 1
            self._bytes -= before.size
            self._keys -= 1
        keys[change.key] = Pending(change, op, since, size)
        self._bytes += size
        self._keys += 1
        # One change always fits: a document may be larger than the limit.
        if self._keys > self._max_keys or (self._bytes > self._max_bytes and self._keys > 1):
            self.overflowed = True
            self.clear()

    def take(self, max_bytes: int) -> list[Pending]:
        """Removes the oldest changes of each partition, about `max_bytes` in all, and at least one if there is one."""
        taken: list[Pending] = []
        size = 0
        queues = list(self._pending.values())
        while queues and (size < max_bytes or not taken):
            for queue in queues:
                if queue and (size < max_bytes or not taken):
                    found = queue.pop(next(iter(queue)))
                    taken.append(found)
                    size += found.size
            queues = [queue for queue in queues if queue]
        self._keys -= len(taken)
        self._bytes -= size
        return taken

    def take_conflated(self) -> int:
        """Returns how many changes were replaced since the last call."""
        taken, self._conflated = self._conflated, 0
        return taken

    def offsets(self, position: Mapping[int, int]) -> dict[int, int]:
        """Returns where the client can resume. position: the next offset of each partition that was not put yet."""
        found = dict(position)
        for partition, queue in self._pending.items():
            for first in queue.values():
                found[partition] = first.since
                break
        return found

    def clear(self) -> None:
        self._pending, self._keys, self._bytes = {}, 0, 0
