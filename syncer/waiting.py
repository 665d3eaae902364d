"""How a lane waits: it can always be told to stop, and it stays in its consumer group meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event


class Stopped(Exception):
    """The lane was told to stop. What it had not finished is done by whoever goes on."""


class Patience:
    """stop: set from outside. keep: called about once a second, to stay in the consumer group."""

    def __init__(self, stop: Event, keep: Callable[[], None]) -> None:
        self._stop = stop
        self.keep = keep
        self._kept = time.monotonic()

    def check(self) -> None:
        """Raise Stopped if told to stop."""
        if self._stop.is_set():
            raise Stopped

    def breathe(self) -> None:
        """To be called often during long work: checks, and keeps the membership once a second."""
        self.check()
        if time.monotonic() - self._kept > 1.0:
            self.keep()
            self._kept = time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Wait so long. Raises Stopped as soon as told to."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if self._stop.wait(max(0.0, min(left, 1.0))):
                raise Stopped
            self.breathe()  # also between many short waits
            if left <= 1.0:
                return

    def back_off(self, first: float, most: float) -> Callable[[], None]:
        """A wait that doubles from `first` to `most` seconds, call by call."""
        pause = first

        def wait() -> None:
            nonlocal pause
            self(pause)
            pause = min(pause * 2, most)

        return wait
