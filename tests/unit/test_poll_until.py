"""`poll_until`: one loop for every wait that has a deadline."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from syncer.pacing import Stopped, SystemTime, Waiter, poll_until


class SimulatedTime(SystemTime):
    """A clock that advances only while a waiter waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: Event, seconds: float) -> bool:
        self.seconds += seconds
        return event.is_set()


def test_the_first_true_value_is_returned() -> None:
    clock = SimulatedTime()
    values = iter([None, 0, "ready", "later"])
    assert poll_until(lambda: next(values), timeout=10, interval=2, waiter=Waiter(time=clock)) == "ready"
    assert clock.seconds == 4


def test_the_condition_is_checked_once_more_at_the_deadline() -> None:
    clock = SimulatedTime()
    checked: list[float] = []

    def never() -> bool:
        checked.append(clock.seconds)
        return False

    assert not poll_until(never, timeout=5, interval=2, waiter=Waiter(time=clock))
    assert checked == [0, 2, 4, 5]


def test_a_timeout_of_zero_checks_once() -> None:
    values: Iterator[bool] = iter([False])
    assert not poll_until(lambda: next(values), timeout=0, interval=1)


def test_a_stopped_lane_stops_the_wait() -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        poll_until(lambda: False, timeout=10, interval=1, waiter=Waiter(stop, time=SimulatedTime()))


def test_an_error_of_the_condition_is_raised() -> None:
    def fail() -> bool:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        poll_until(fail, timeout=10, interval=1)
