"""Opens one feed for each topic, limits the number of clients, and ends their streams when the server stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus

from syncer.config.schema import PushSettings
from syncer.errors import SyncerError
from syncer.ports import DocumentTopic, DocumentWrite, TopicState
from syncer.serving.problem import Problem
from syncer.serving.push.catch_up import CatchUp
from syncer.serving.push.cursor import Cursor
from syncer.serving.push.feed import Feed
from syncer.serving.push.filters import Filter
from syncer.serving.push.follower import Follower
from syncer.serving.push.stream import Stream
from syncer.serving.push.subscription import Limits, Offsets, Subscription
from syncer.serving.tools import BlockingCalls, Tools
from syncer.telemetry import logs
from syncer.telemetry.metrics import PushMetrics

_OPEN_TIMEOUT = 30.0  # seconds
_IDLE = 60.0
"""Seconds for which a topic without clients is followed, so that clients that come back can resume from memory."""
_CATCH_UPS = 8
"""Clients of one process that read missed changes at the same time. Others wait."""


class TopicFeed:
    """Implements `follower.Listener`: the feed of one topic, and its clients."""

    def __init__(self, topic: DocumentTopic) -> None:
        self.topic = topic
        self.streams: dict[Stream, None] = {}
        self.clients = 0
        """With those that wait for the feed to be ready."""
        self.feed: Feed | None = None
        self._ready = asyncio.get_running_loop().create_future()
        self._reason = ""
        self._follower = Follower(topic, self, asyncio.get_running_loop())
        self._follower.start()

    async def ready(self) -> Feed:
        """Returns the feed when it has read the last minutes. Raises SyncerError if the topic cannot be read."""
        feed: Feed = await asyncio.shield(self._ready)
        return feed

    def close(self) -> None:
        self._follower.stop()

    def opened(self, state: TopicState, start: Offsets) -> None:
        if self.feed is not None:
            self._set_ready()
            for stream in list(self.streams):
                stream.subscription.must_refetch("the topic was created again, or its records were deleted")
        self.feed = Feed(state.id, self.topic.window, start, state.ends)

    def delivered(self, writes: Sequence[DocumentWrite], position: Offsets) -> None:
        if self.feed is not None:
            self.feed.deliver(writes, position)
            self._check_ready(self.feed)

    def saw_ends(self, ends: Offsets, at: float) -> None:
        if self.feed is not None:
            self.feed.saw_ends(ends, at)
            self._check_ready(self.feed)

    def failed(self, error: SyncerError) -> None:
        if str(error) != self._reason:
            logs.get().warning("changes cannot be pushed", error=error)
        self._reason = str(error)
        self._set_ready()
        self._ready.set_exception(error)
        self._ready.exception()  # nobody may be waiting for it

    def _check_ready(self, feed: Feed) -> None:
        if feed.is_ready and not (self._ready.done() and not self._ready.exception() and self._ready.result() is feed):
            self._reason = ""
            self._set_ready()
            self._ready.set_result(feed)

    def _set_ready(self) -> None:
        """Makes a future that is not done yet, for the next result."""
        if self._ready.done():
            self._ready = asyncio.get_running_loop().create_future()


class Hub:
    """All clients of one process. For the thread of the event loop."""

    def __init__(self, tools: Tools, settings: PushSettings) -> None:
        self._tools, self._settings = tools, settings
        self._limits = Limits(settings.max_keys, settings.max_bytes)
        self._feeds: dict[str, TopicFeed] = {}
        self._calls = BlockingCalls(_CATCH_UPS)
        self._catch_ups = asyncio.Semaphore(_CATCH_UPS)
        self._ending: asyncio.Task[None] | None = None

    async def subscribe(
        self,
        topic: DocumentTopic,
        metrics: PushMetrics,
        filter: Filter,
        cursor: Cursor | None,
        *,
        documents: bool,
        beginning: bool,
    ) -> Stream:
        """Returns the stream of a new client. The caller closes it.

        metrics: of the topic's read model. cursor: where the client resumes.
        beginning: without a cursor, whether all documents are sent first.
        Raises Problem (503) if there are too many clients, and SyncerError if the topic cannot be read.
        """
        if sum(one.clients for one in self._feeds.values()) >= self._settings.max_clients:
            error, hint = "too many clients receive changes", "raise push.max_clients, or run: syncer serve"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, error, hint, headers={"Retry-After": "5"})
        shared = self._open(topic)
        shared.clients += 1
        try:
            try:
                feed = await self._tools.shutdown.wait_for(shared.ready(), _OPEN_TIMEOUT)
            except TimeoutError:
                error, hint = f"{topic.name} could not be read in {_OPEN_TIMEOUT:.0f} s", "check that Kafka is up"
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, error, hint, headers={"Retry-After": "5"}) from None
            return self._stream(shared, feed, metrics, filter, cursor, documents=documents, beginning=beginning)
        except BaseException:
            shared.clients -= 1
            raise

    def _open(self, topic: DocumentTopic) -> TopicFeed:
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())
        if topic.name not in self._feeds:
            self._feeds[topic.name] = TopicFeed(topic)
            asyncio.get_running_loop().call_later(_IDLE, self._close_idle, topic.name)
        return self._feeds[topic.name]

    def _close_idle(self, name: str) -> None:
        """Closes a feed that has no clients, and checks again later otherwise."""
        found = self._feeds[name]
        if found.clients:
            asyncio.get_running_loop().call_later(_IDLE, self._close_idle, name)
        else:
            del self._feeds[name]
            found.close()

    def _stream(
        self,
        shared: TopicFeed,
        feed: Feed,
        metrics: PushMetrics,
        filter: Filter,
        cursor: Cursor | None,
        *,
        documents: bool,
        beginning: bool,
    ) -> Stream:
        wake, drained = asyncio.Event(), asyncio.Event()
        offsets: Offsets = dict(enumerate(cursor.offsets)) if cursor else {} if beginning else feed.position
        subscription = Subscription(filter, self._limits, offsets, documents=documents, wake=wake.set)
        at = cursor.at if cursor else time.time() if beginning else feed.at
        stream = Stream(subscription, feed, at, wake, drained, metrics, on_close=lambda: self._leave(shared, stream))
        shared.streams[stream] = None
        if cursor and (cursor.topic != feed.topic or len(cursor.offsets) != len(feed.position)):
            subscription.must_refetch("the changes since then were in another topic")
        elif beginning or cursor:
            catch_up = CatchUp(shared.topic, feed, self._calls, drained)
            stream.catching_up = asyncio.ensure_future(self._catch_up(catch_up, subscription, cursor, feed))
        else:
            feed.join(subscription)
        return stream

    async def _catch_up(self, catch_up: CatchUp, subscription: Subscription, cursor: Cursor | None, feed: Feed) -> None:
        ahead = any(offset > feed.position[number] for number, offset in subscription.next.items())
        if cursor and not ahead and feed.join(subscription):
            return
        try:
            async with self._catch_ups:
                await catch_up.run(subscription, cursor)
        except SyncerError as error:
            subscription.must_refetch(f"the changes since then cannot be read: {error.what}")

    def _leave(self, shared: TopicFeed, stream: Stream) -> None:
        del shared.streams[stream]
        shared.clients -= 1
        stream.feed.leave(stream.subscription)

    async def _end(self) -> None:
        await self._tools.shutdown.wait()
        for shared in self._feeds.values():
            shared.close()
            for stream in list(shared.streams):
                stream.stop()
