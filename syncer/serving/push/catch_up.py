"""Reads the writes between the position of one client and the changes that its feed still has."""

from __future__ import annotations

import asyncio
import threading
import time

from syncer.ports import DocumentReader, DocumentTopic, DocumentWrite, TopicState
from syncer.serving.push.cursor import Cursor
from syncer.serving.push.feed import Feed, changes
from syncer.serving.push.subscription import Offsets, Subscription
from syncer.serving.push.versions import RecentVersions
from syncer.serving.tools import BlockingCalls

_POLL = 0.25  # seconds
_LONGEST = 1800.0
"""Seconds. Deletes can be read for at least an hour, so none is missed in this time."""
_RESERVE = 0.9
"""The part of the retention in which a client can resume. The clocks of two hosts may differ."""


class CatchUp:
    """drained: set when the client has taken changes."""

    def __init__(self, topic: DocumentTopic, feed: Feed, calls: BlockingCalls, drained: asyncio.Event) -> None:
        self._topic, self._feed, self._calls, self._drained = topic, feed, calls, drained

    async def run(self, subscription: Subscription, cursor: Cursor | None) -> None:
        """Returns when the subscription has joined the feed, or when its client has to fetch everything again.

        cursor: where the client resumes; None for the beginning of the topic. Raises Retry and Fatal.
        """
        state = await self._calls.run(self._topic.state)
        if cursor is None:
            subscription.advance(state.begins)
            await self._read(subscription, state.begins)
        elif why := refused(cursor, state, time.time()):
            subscription.must_refetch(why)
        else:
            before = await self._calls.run(self._topic.at_time, int((cursor.at - self._topic.window) * 1000))
            start = {number: min(offset, before[number]) for number, offset in subscription.next.items()}
            await self._read(subscription, start)

    async def _read(self, subscription: Subscription, start: Offsets) -> None:
        """start: at least one window before the client's position, so that late writes behind it are detected."""
        until = time.monotonic() + _LONGEST
        reader = _LockedReader(await self._calls.run(self._topic.reader, start))
        versions = RecentVersions(self._topic.window)
        try:
            while not subscription.refetch and not self._feed.join(subscription):
                if time.monotonic() > until:
                    subscription.must_refetch("the client needed too long to receive the documents")
                elif subscription.half_full:
                    self._drained.clear()
                    await self._drained.wait()
                else:
                    for change in changes(await self._calls.run(reader.poll), versions):
                        subscription.offer(change)
                    subscription.advance(reader.next)
        finally:
            closing = asyncio.ensure_future(self._calls.run(reader.close))
            closing.add_done_callback(lambda done: done.cancelled() or done.exception())


def refused(cursor: Cursor, state: TopicState, now: float) -> str:
    """Returns why a client cannot resume at a cursor of this topic; empty if it can. now: seconds since 1970."""
    if any(offset < state.begins[number] for number, offset in enumerate(cursor.offsets)):
        return "the changes since then were deleted from the topic"
    if any(offset > state.ends[number] for number, offset in enumerate(cursor.offsets)):
        return "the topic has lost changes that the client has received"
    if now - cursor.at > state.retention * _RESERVE:
        return "the client was away for too long: deletes since then may have been removed from the topic"
    return ""


class _LockedReader:
    """A reader that can be closed while another thread still polls it."""

    def __init__(self, reader: DocumentReader) -> None:
        self._reader, self._lock, self._closed = reader, threading.Lock(), False
        self.next: Offsets = dict(reader.next)

    def poll(self) -> list[DocumentWrite]:
        with self._lock:
            found = [] if self._closed else self._reader.poll(_POLL)
            self.next = dict(self._reader.next)
            return found

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._reader.close()
