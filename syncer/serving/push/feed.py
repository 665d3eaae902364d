"""The changes of one documents topic, for all clients of this process. Pure: no clock, no thread, no I/O.

`follower.py` reads the topic once for all clients and calls `deliver`. The feed leaves out late writes of older
versions, keeps the last changes for clients that resume, and offers each change to the subscriptions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from syncer.ports import DocumentWrite
from syncer.serving.push.change import Change
from syncer.serving.push.cursor import Cursor, hash_of
from syncer.serving.push.subscription import Offsets, Subscription
from syncer.serving.push.versions import RecentVersions

MAX_RECENT, MAX_RECENT_BYTES = 4000, 4 << 20
"""Changes that are kept for clients that resume. Older ones are read from Kafka again."""
_MAX_SENDS, _MAX_PAUSE = 4000.0, 0.25
"""Sends a second to all clients of a feed, and seconds between two sends to one of them. A send takes some 50 µs."""


def changes(writes: Iterable[DocumentWrite], versions: RecentVersions) -> list[Change]:
    """Returns the changes for clients: without late writes, and without records that the syncer did not write."""
    return [
        Change(write)
        for write in writes
        if write.version and not versions.is_late(write.id, write.version, write.at_ms)
    ]


class Feed:
    """topic_id: of the topic. window: see `ports.DocumentTopic`. start: where the follower begins to read.

    ready: the end of the topic when the follower began. What it reads before only shows which versions exist, so no
    client sees it, and none can resume there without reading the topic again.
    """

    def __init__(self, topic_id: str, window: float, start: Offsets, ready: Offsets) -> None:
        self.topic = hash_of(topic_id)
        self.position = dict(start)
        """The next offset of each partition."""
        self._ready = dict(ready)
        self.at = 0.0
        """Everything behind the position was written after this time (seconds since the Unix epoch)."""
        self._text = ""
        """The cursor of a client that has everything, as text; empty if it is to be made."""
        self._seen: tuple[Offsets, float] = {}, 0.0
        """The ends of the topic at a time that the position may not have reached yet."""
        self._versions = RecentVersions(window)
        self._recent: deque[Change] = deque()
        self._recent_bytes = 0
        self._recent_begin = dict(ready)
        """The kept changes are complete from these offsets on."""
        self._clients: set[Subscription] = set()
        self._everything: dict[Subscription, None] = {}
        self._by_key: dict[str, dict[Subscription, None]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the follower has read what was in the topic when it began."""
        return _reached(self.position, self._ready)

    @property
    def pause(self) -> float:
        """Seconds between two sends to a client that keeps up.

        Without a pause, each change is a send of its own. With many clients, these sends would need all time of the
        event loop, and the changes would arrive later than with the pause.
        """
        return min(_MAX_PAUSE, len(self._clients) / _MAX_SENDS)

    def cursor(self, offsets: Offsets | None = None, at: float | None = None) -> Cursor:
        """Returns the cursor of a client; without offsets and time, that of a client that has everything."""
        return Cursor.of(self.topic, self.at if at is None else at, self.position if offsets is None else offsets)

    def cursor_text(self) -> str:
        """Returns `cursor()` as text. Most clients have everything, so it is made once for all of them."""
        self._text = self._text or self.cursor().encode()
        return self._text

    def deliver(self, writes: Sequence[DocumentWrite], position: Offsets) -> None:
        """Takes the next writes of the topic. position: the offsets behind them."""
        for change in changes(writes, self._versions):
            if change.offset >= self._ready.get(change.partition, 0):
                self._keep(change)
                for one in (*self._everything, *self._by_key.get(change.key, ())):
                    one.offer(change)
        for partition, offset in position.items():
            self.position[partition] = max(offset, self.position.get(partition, 0))
        self._text = ""
        self._note_time()

    def saw_ends(self, ends: Offsets, at: float) -> None:
        """Notes the ends of the topic at a time (seconds since the Unix epoch). The position may be before them."""
        self._seen = ends, at
        self._note_time()

    def _note_time(self) -> None:
        ends, at = self._seen
        if _reached(self.position, ends):
            self.at, self._text = max(at, self.at), ""

    def covers(self, offsets: Offsets) -> bool:
        """Returns whether the kept changes include all from these offsets on."""
        return self.is_ready and _reached(offsets, self._recent_begin)

    def join(self, subscription: Subscription) -> bool:
        """Offers the kept changes behind the position of a subscription, and all later ones.

        Returns False if `covers` does. Then nothing happens.
        """
        if not self.covers(subscription.next):
            return False
        for change in self._recent:
            subscription.offer(change)
        for index in self._indexes(subscription):
            index[subscription] = None
        self._clients.add(subscription)
        subscription.go_live()
        return True

    def leave(self, subscription: Subscription) -> None:
        """Removes a subscription, if it has joined."""
        self._clients.discard(subscription)
        for index in self._indexes(subscription):
            index.pop(subscription, None)
        for key in subscription.filter.keys:
            if not self._by_key.get(key, True):
                del self._by_key[key]

    def _indexes(self, subscription: Subscription) -> list[dict[Subscription, None]]:
        if not subscription.filter.keys:
            return [self._everything]
        return [self._by_key.setdefault(key, {}) for key in subscription.filter.keys]

    def _keep(self, change: Change) -> None:
        self._recent.append(change)
        self._recent_bytes += len(change.body or b"")
        while len(self._recent) > MAX_RECENT or self._recent_bytes > MAX_RECENT_BYTES:
            oldest = self._recent.popleft()
            self._recent_bytes -= len(oldest.body or b"")
            self._recent_begin[oldest.partition] = oldest.offset + 1


def _reached(position: Offsets, ends: Offsets) -> bool:
    return all(position.get(partition, 0) >= end for partition, end in ends.items())
