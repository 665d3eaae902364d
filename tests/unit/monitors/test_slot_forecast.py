"""Tests when the forecast of a lost slot speaks, and that a healthy slot never causes one."""

from __future__ import annotations

import random

import pytest

from syncer.monitors.slot_forecast import SlotForecast

MIB = 1 << 20


def forecast(retained: list[int], every: float = 10.0) -> SlotForecast:
    made = SlotForecast()
    for number, value in enumerate(retained):
        made.add(1000 + number * every, value)
    return made


def test_a_slot_that_nobody_reads_is_lost_at_the_rate_of_the_writes() -> None:
    found = forecast([number * 10 * MIB for number in range(31)])  # 1 MiB/s for 5 min
    assert found.rate() == pytest.approx(MIB, rel=0.15)
    assert found.seconds_left(600 * MIB) == pytest.approx(600, rel=0.15)


def test_a_healthy_slot_that_grows_and_shrinks_is_not_lost() -> None:
    saw = [(number % 6) * 16 * MIB for number in range(60)]
    for end in range(10, 60):  # on every slope of the saw
        assert forecast(saw[:end]).seconds_left(MIB) is None


def test_a_healthy_slot_under_changing_load_is_not_lost() -> None:
    """Once, a healthy slot was said to be lost in 360 days, because its lowest values had risen a little."""
    for seed in range(200):
        load = random.Random(seed)
        uneven = [load.randrange(MIB) + (number % 2) * load.randrange(MIB) for number in range(60)]
        assert forecast(uneven).rate() == 0


def test_without_a_limit_or_without_enough_values_there_is_no_forecast() -> None:
    growing = [number * MIB for number in range(31)]
    assert forecast(growing).seconds_left(None) is None
    assert forecast(growing[:4]).seconds_left(MIB) is None
    assert SlotForecast().seconds_left(MIB) is None


def test_only_the_last_ten_minutes_count() -> None:
    grew_long_ago = [number * MIB for number in range(60)] + [60 * MIB] * 70
    assert forecast(grew_long_ago).rate() == 0
