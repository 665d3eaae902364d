"""Reads a documents topic once for all clients of this process, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVarTuple

from syncer.errors import Fatal, SyncerError
from syncer.ports import DocumentTopic, DocumentWrite, TopicState
from syncer.serving.push.subscription import Offsets

Arguments = TypeVarTuple("Arguments")
_POLL = 0.25  # seconds
_CHECK_EVERY = 5.0  # seconds
_BACK_OFF = 1.0  # seconds


class Listener(Protocol):
    """Receives what a follower reads. The thread of the event loop calls these methods."""

    def opened(self, state: TopicState, start: Offsets) -> None:
        """The follower begins, or begins again because offsets of another topic or deleted ones mean nothing."""
        ...

    def delivered(self, writes: Sequence[DocumentWrite], position: Offsets) -> None:
        """The next writes, and the offsets behind them."""
        ...

    def saw_ends(self, ends: Offsets, at: float) -> None:
        """The ends of the topic at a time (seconds since the Unix epoch). The position may be before them."""
        ...

    def failed(self, error: SyncerError) -> None:
        """The topic cannot be read now. The follower tries again."""
        ...


class Follower:
    """Runs between `start` and `stop`. It reads the next writes when the listener has taken the last ones."""

    def __init__(self, topic: DocumentTopic, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self._topic, self._listener, self._loop = topic, listener, loop
        self._stop = threading.Event()
        self._id = ""
        self._position: dict[int, int] = {}
        self._thread = threading.Thread(target=self._run, name=f"push {topic.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread soon. Does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except SyncerError as error:
                self._call(self._listener.failed, error)
            except Exception as error:
                self._call(
                    self._listener.failed, Fatal("a defect of the syncer", where=self._topic.name, why=repr(error))
                )
            self._stop.wait(_BACK_OFF)

    def _follow(self) -> None:
        """Reads until the topic is another one, or until an error. Continues where the last call ended."""
        at, state = time.time(), self._topic.state()
        if not self._fits(state):
            start = self._topic.at_time(int((at - self._topic.window) * 1000))
            self._id, self._position = state.id, dict(start)
            self._call(self._listener.opened, state, start)
        reader = self._topic.reader(self._position)
        try:
            while not self._stop.is_set() and self._fits(state):
                self._call(self._listener.saw_ends, state.ends, at)
                self._read(reader.poll, reader.next)
                at, state = time.time(), self._topic.state()
        finally:
            reader.close()

    def _read(self, poll: Callable[[float], list[DocumentWrite]], position: Offsets) -> None:
        """Reads until the next check is due."""
        until = time.monotonic() + _CHECK_EVERY
        while not self._stop.is_set() and time.monotonic() < until:
            writes = poll(_POLL)
            if writes or position != self._position:
                self._position = dict(position)
                self._call(self._listener.delivered, writes, self._position)

    def _fits(self, state: TopicState) -> bool:
        """Returns whether the position still means something in this topic."""
        return (
            state.id == self._id
            and state.begins.keys() == self._position.keys()
            and all(state.begins[number] <= offset for number, offset in self._position.items())
        )

    def _call(self, function: Callable[[*Arguments], None], *args: *Arguments) -> None:
        """Calls a function on the thread of the event loop, and waits until it has returned."""
        done = threading.Event()

        def call() -> None:
            try:
                function(*args)
            finally:
                done.set()

        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: the server has stopped
            self._stop.set()
            return
        while not done.wait(1.0):
            if self._loop.is_closed() or self._stop.is_set():
                return
