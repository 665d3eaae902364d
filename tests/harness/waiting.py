"""Waiting in tests: for a condition, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any


def until(condition: Callable[[], Any], what: object = "", seconds: float = 90) -> Any:
    """Calls `condition` until its value is true, and returns that value.

    The pause between two calls is 50 ms, or as long as the last call took, up to 500 ms. So an expensive condition
    uses at most half of the time of a core.

    what: added to the error if the condition stays false. If it is a function, it is called only then.
    seconds: the timeout. Raises AssertionError when it expires.
    """
    began = time.monotonic()
    deadline = began + seconds
    while not (value := condition()):
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"the condition is not met after {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(min(max(now - began, 0.05), 0.5))
        began = time.monotonic()
    return value


def remaining(deadline: float, pause: float = 0.2) -> Iterator[float]:
    """Yields the seconds that remain until `deadline` (monotonic), and pauses after each. Ends at the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, left))
