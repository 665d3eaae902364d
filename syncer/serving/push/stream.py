"""The messages of one client, and their form as server-sent events and as WebSocket messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Literal, NamedTuple

import orjson

from syncer.serving.push.feed import Feed
from syncer.serving.push.subscription import Subscription
from syncer.serving.tools import Stopping
from syncer.telemetry.metrics import PushMetrics

KEEP_ALIVE = 15.0
"""Seconds without a message after which a keep-alive is sent."""
_AT_ONCE = 64 << 10
"""Bytes of changes that are handed to the connection at once. What waits longer can still be replaced."""


class Message(NamedTuple):
    event: Literal["change", "live", "keep-alive", "must-refetch"]
    data: bytes
    """A JSON object."""
    id: str = ""
    """Where a client that has received this message and all before it can resume; empty: at an earlier id."""


class Stream:
    """wake: set when there is something to send. drained: set when changes were taken. on_close: is called once."""

    def __init__(
        self,
        subscription: Subscription,
        feed: Feed,
        at: float,
        wake: asyncio.Event,
        drained: asyncio.Event,
        metrics: PushMetrics,
        *,
        on_close: Callable[[], None],
    ) -> None:
        """at: everything behind the position of the subscription was written, or first read, after this time."""
        self.subscription, self.feed = subscription, feed
        self.catching_up: asyncio.Task[None] | None = None
        self._at, self._wake, self._drained, self._on_close = at, wake, drained, on_close
        self._metrics = metrics
        self._stopping = self._closed = False
        metrics.joined()

    def stop(self) -> None:
        """Ends the stream: the server stops."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Frees everything. Idempotent."""
        if not self._closed:
            self._closed = True
            self._metrics.left()
            self._metrics.sent(0, self.subscription.take_conflated())
            if self.catching_up:
                self.catching_up.cancel()
            self._on_close()

    async def messages(self) -> AsyncIterator[list[Message]]:
        """Yields messages until the client has to fetch everything again. Raises Stopping when the server stops."""
        one, was_live = self.subscription, False
        if not one.refetch:
            yield [Message("keep-alive", b"{}", self._id())]
        while not self._stopping:
            if one.refetch:
                self._metrics.dropped("slow" if one.overflowed else "gap")
                reason = orjson.dumps({"reason": one.refetch})
                yield [Message("must-refetch", reason, self.feed.cursor_text())]
                return
            found = [
                Message("change", each.change.text(each.op, documents=one.documents)) for each in one.take(_AT_ONCE)
            ]
            if found:
                self._metrics.sent(len(found), one.take_conflated())
                self._drained.set()
            id = self._id()
            if one.live and not one.waiting and not was_live:
                was_live = True
                found.append(Message("live", b"{}"))
            if found:
                yield [*found[:-1], found[-1]._replace(id=id)]
                # To send may not wait, and others have to run. A short pause collects what comes next.
                await asyncio.sleep(0 if one.waiting else self.feed.pause)
                continue
            self._wake.clear()
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await self._wake.wait()
            except TimeoutError:
                yield [Message("keep-alive", b"{}", self._id())]
        raise Stopping

    def _id(self) -> str:
        """Returns where the client can resume when it has received everything that was taken."""
        one = self.subscription
        if one.live:
            one.advance(self.feed.position)
            if not one.waiting:
                self._at = self.feed.at
                if one.next == self.feed.position:
                    return self.feed.cursor_text()
        return self.feed.cursor(one.offsets, self._at).encode() if one.next else ""


def as_event(message: Message) -> bytes:
    """Returns a message as a server-sent event. A keep-alive is a comment that only moves the id on."""
    id = b"id: %s\n" % message.id.encode() if message.id else b""
    if message.event == "keep-alive":
        return b": keep-alive\n" + id + b"\n"
    name = b"" if message.event == "change" else b"event: %s\n" % message.event.encode()
    return name + id + b"data: " + message.data + b"\n\n"


def as_text(message: Message) -> str:
    """Returns a message for a WebSocket: the same object with the fields `event` and `id`."""
    head = orjson.dumps({"event": message.event} | ({"id": message.id} if message.id else {}))
    body = message.data[1:] if message.data != b"{}" else b"}"
    return (head[:-1] + (b"," if body != b"}" else b"") + body).decode()
