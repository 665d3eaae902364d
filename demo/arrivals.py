"""Measures when posts arrive in feeds in Redis, for the example `social_feed`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from demo.screen import Failed

_SLICE = 2000
"""Feeds that one command reads."""


class Arrival(NamedTuple):
    """A post that arrived in a feed."""

    written: float
    """When it was committed, by the monotonic clock."""
    seconds: float


class Watch:
    """Polls feeds until they have the expected posts, in a thread. client: of Redis."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._missing: dict[tuple[int, int], float] = {}
        self._arrivals: list[Arrival] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def expect(self, user: int, post: int) -> None:
        """Expects a post, which has just been committed, in the feed of a user."""
        with self._lock:
            self._missing[user, post] = time.monotonic()

    def wait(self, timeout: float) -> None:
        """Waits until no post is missing. Raises Failed after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._missing:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise Failed(f"Posts are missing in feeds: (user, post) {list(self._missing)[:5]}")
            time.sleep(0.01)

    def seconds(self, since: float, until: float) -> list[float]:
        """Returns how long the posts took that were committed in this time, sorted."""
        return sorted(one.seconds for one in self._arrivals if since <= one.written <= until)

    def _run(self) -> None:
        while not self._ended.wait(0.005):
            with self._lock:
                missing = dict(self._missing)
            feeds = self._client.mget([f"feed:{user}" for user, _ in missing]) if missing else []
            now = time.monotonic()
            for (user, post), feed in zip(missing, feeds, strict=True):
                if feed and post in orjson.loads(feed)["posts"]:
                    written = self._missing.pop((user, post))
                    self._arrivals.append(Arrival(written, now - written))


def reach_all(client: Any, post: int, users: Iterable[int], timeout: float) -> float:
    """Waits until the feeds of all these users have a post. Returns the seconds since the call.

    Raises Failed after `timeout` seconds.
    """
    began, missing = time.monotonic(), [f"feed:{user}" for user in users]
    pattern = str(post).encode()
    while missing:
        if time.monotonic() > began + timeout:
            raise Failed(f"After {timeout:g} s, {len(missing):,} feeds do not have the post {post}.")
        some = missing[:_SLICE]
        feeds = client.mget(some)
        left = [key for key, feed in zip(some, feeds, strict=True) if feed is None or pattern not in feed]
        missing = missing[_SLICE:] + left
        if left:
            time.sleep(0.05)  # the polls must not slow down what they measure
    return time.monotonic() - began
