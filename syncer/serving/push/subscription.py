"""One client of a feed: its filter, its mailbox, and its position. Pure: the caller passes a function that wakes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from syncer.serving.push.change import Change
from syncer.serving.push.filters import Filter
from syncer.serving.push.mailbox import Mailbox, Pending

Offsets = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the mailbox of one client."""

    max_keys: int
    max_bytes: int


class Subscription:
    """documents: whether the client receives documents. offsets: the next one of each partition that it needs."""

    def __init__(
        self, filter: Filter, limits: Limits, offsets: Offsets, *, documents: bool, wake: Callable[[], None]
    ) -> None:
        self.filter, self.documents, self._wake = filter, documents, wake
        self._mailbox = Mailbox(limits.max_keys, limits.max_bytes, documents=documents)
        self.next = dict(offsets)
        """The next offset of each partition that the client needs. What comes before it is not offered again."""
        self.live = False
        """Whether the feed delivers to the client. Before, a catch-up does."""
        self.refetch = ""
        """Why the client has to fetch all documents again. The stream ends then."""

    def offer(self, change: Change) -> None:
        """Adds a change, if it is behind the client's position and its filter lets it pass."""
        if change.offset < self.next.get(change.partition, 0) or self.refetch:
            return
        op = self.filter.op(change)
        if op is None:
            return
        self._mailbox.put(change, op)
        if self._mailbox.overflowed:
            self.must_refetch("the client reads too slowly: too many changed documents wait for it")
        else:
            self._wake()

    def advance(self, offsets: Offsets) -> None:
        """Everything before these offsets was offered, or the filter does not let it pass."""
        for partition, offset in offsets.items():
            self.next[partition] = max(offset, self.next.get(partition, 0))

    def go_live(self) -> None:
        self.live = True
        self._wake()

    def must_refetch(self, why: str) -> None:
        """Ends the stream. The first reason counts."""
        self.refetch = self.refetch or why
        self._mailbox.clear()
        self._wake()

    def take(self, max_bytes: int) -> list[Pending]:
        """Returns the next changes, about `max_bytes` in all."""
        return self._mailbox.take(max_bytes)

    def take_conflated(self) -> int:
        """Returns how many changes were replaced by later ones since the last call."""
        return self._mailbox.take_conflated()

    @property
    def overflowed(self) -> bool:
        """Whether more changes waited than the client may have waiting."""
        return self._mailbox.overflowed

    @property
    def waiting(self) -> int:
        """The number of changes that wait for the client."""
        return len(self._mailbox)

    @property
    def half_full(self) -> bool:
        return self._mailbox.half_full

    @property
    def offsets(self) -> dict[int, int]:
        """Where the client can resume when it has received everything that was taken."""
        return self._mailbox.offsets(self.next)
