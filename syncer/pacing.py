"""How a lane waits: it can always be told to stop, and it stays in its consumer group meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


class SystemTime:
    """What time it is, how it passes, and what is done meanwhile. The engine asks nowhere else; so a test may
    pass a time of its own, and have everything happen in the order that it likes."""

    def monotonic(self) -> float:
        """Seconds, since an unknown moment."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def wait(self, event: Event, seconds: float) -> bool:
        """Whether the event was set within so many seconds."""
        return event.wait(seconds)

    def run_in_background(self, name: str, work: Callable[[], T]) -> Future[T]:
        """Begin work on a thread that does not hold up the end of the process: it may take a minute."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        Thread(target=run, name=name, daemon=True).start()
        return future

    def done(self, future: Future[T], seconds: float) -> bool:
        """Whether the work was done within so many seconds."""
        return bool(wait([future], timeout=seconds).done)


class Stopped(Exception):
    """The lane was told to stop. What it had not finished is done by whoever goes on."""


class Waiter:
    """stop: set from outside. keep: called about once a second, to stay in the consumer group; it may raise
    to give up."""

    def __init__(
        self,
        stop: Event | None = None,
        heartbeat: Callable[[], None] = lambda: None,
        time: SystemTime | None = None,
    ) -> None:
        self._stop = stop or Event()
        self.heartbeat, self.time = heartbeat, time or SystemTime()
        self._kept = self.time.monotonic()

    def check(self) -> None:
        """Raise Stopped if told to stop."""
        if self._stop.is_set():
            raise Stopped

    def tick(self) -> None:
        """To be called often during long work: checks, and keeps the membership once a second."""
        self.check()
        if self.time.monotonic() - self._kept > 1.0:
            self.heartbeat()
            self._kept = self.time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Wait so long. Raises Stopped as soon as told to."""
        end = self.time.monotonic() + seconds
        while True:
            left = end - self.time.monotonic()
            if self.time.wait(self._stop, max(0.0, min(left, 1.0))):
                raise Stopped
            self.tick()  # also between many short waits
            if left <= 1.0:
                return

    def result(self, future: Future[T]) -> T:
        """Of work beside; the membership is kept meanwhile. Raises what the work raised."""
        while not self.time.done(future, 1.0):
            self.heartbeat()
        return future.result()

    def back_off(self, first: float, most: float) -> Callable[[], None]:
        """A wait that doubles from `first` to `most` seconds, call by call."""
        pause = first

        def wait() -> None:
            nonlocal pause
            self(pause)
            pause = min(pause * 2, most)

        return wait


def poll_until(condition: Callable[[], T], *, timeout: float, interval: float, waiter: Waiter | None = None) -> T:
    """Calls `condition` until it returns a true value, or until the timeout.

    Calls it at least once, and once more when the timeout is reached.
    timeout, interval: seconds.
    waiter: waits between the calls, and raises Stopped when the lane stops. Without it, the thread sleeps.
    Returns the last value of `condition`; it is false after the timeout. Raises what `condition` raises.
    """
    now: Callable[[], float] = waiter.time.monotonic if waiter else time.monotonic
    wait: Callable[[float], None] = waiter or time.sleep
    deadline = now() + timeout
    while not (value := condition()) and (left := deadline - now()) > 0:
        wait(min(interval, left))
    return value
