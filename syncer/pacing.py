"""Lets a lane wait. A waiting lane can be stopped at any time, and it stays in its consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


class SystemTime:
    """Reads the time, waits, and runs work on other threads.

    The pipeline does these three only through this class. So a test can pass its own time, and decide the order of
    all events.
    """

    def monotonic(self) -> float:
        """Returns seconds since an arbitrary moment."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Returns milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def wait(self, event: Event, seconds: float) -> bool:
        """Waits for an event. Returns whether it was set within the given number of seconds."""
        return event.wait(seconds)

    def run_in_background(self, name: str, work: Callable[[], T]) -> Future[T]:
        """Starts work on a daemon thread, so that the process can exit before the work ends. It may take a minute."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        Thread(target=run, name=name, daemon=True).start()
        return future

    def done(self, future: Future[T], seconds: float) -> bool:
        """Waits for work. Returns whether it ended within the given number of seconds."""
        return bool(wait([future], timeout=seconds).done)


class BackOff:
    """Doubles a pause with each failure, from `first` to `longest` seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def pause(self) -> float:
        """Returns the seconds to wait after a failure."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause

    def reset(self) -> None:
        """Starts with the first pause again, after a success."""
        self._next = self._first


class Stopped(Exception):
    """The lane was asked to stop. The next lane repeats the work that this one has not finished."""


class Waiter:
    """Waits on behalf of one lane.

    stop: set by another thread to stop the lane.
    heartbeat: called about once a second, to keep the lane in its consumer group. An error that it raises ends the
    wait.
    """

    def __init__(
        self,
        stop: Event | None = None,
        heartbeat: Callable[[], None] = lambda: None,
        time: SystemTime | None = None,
    ) -> None:
        self._stop = stop or Event()
        self.heartbeat, self.time = heartbeat, time or SystemTime()
        self._last_heartbeat = self.time.monotonic()

    def check(self) -> None:
        """Raises Stopped if the lane is to stop."""
        if self._stop.is_set():
            raise Stopped

    def tick(self) -> None:
        """Checks for a stop, and sends a heartbeat once a second. The caller calls this often during long work."""
        self.check()
        if self.time.monotonic() - self._last_heartbeat > 1.0:
            self.heartbeat()
            self._last_heartbeat = self.time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Waits for the given number of seconds. Raises Stopped as soon as the lane is to stop."""
        end = self.time.monotonic() + seconds
        while True:
            left = end - self.time.monotonic()
            if self.time.wait(self._stop, max(0.0, min(left, 1.0))):
                raise Stopped
            self.tick()  # here, so that many short waits send heartbeats, too
            if left <= 1.0:
                return

    def result(self, future: Future[T]) -> T:
        """Waits for work on another thread, and sends heartbeats meanwhile. Raises the error of the work."""
        while not self.time.done(future, 1.0):
            self.heartbeat()
        return future.result()

    def back_off(self, first: float, longest: float) -> Callable[[], None]:
        """Returns a function that waits. Each call doubles its time, from `first` to `longest` seconds."""
        back_off = BackOff(first, longest)
        return lambda: self(back_off.pause())


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
