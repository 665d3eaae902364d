"""Tests the bounded history of samples."""

from __future__ import annotations

from syncer.telemetry.history import History


def test_columns_have_the_same_length_and_unknown_values_are_none() -> None:
    history = History()
    history.add(10, {"lag": 0.5})
    history.add(12, {"lag": 0.1, "rate": 7})
    history.add(14, {"rate": None})
    assert history.columns() == ([10, 12, 14], {"lag": [0.5, 0.1, None], "rate": [None, 7, None]})


def test_only_samples_after_a_time_are_returned() -> None:
    history = History()
    for at in (10, 12, 14):
        history.add(at, {"lag": at})
    assert history.columns(since=12) == ([14], {"lag": [14]})
    assert history.columns(since=14) == ([], {})


def test_old_samples_are_dropped() -> None:
    history = History(kept=100)
    for at in range(0, 1000, 2):
        history.add(at, {"lag": at})
    assert history.columns()[0] == list(range(898, 1000, 2))


def test_times_increase_although_the_clock_is_set_back() -> None:
    history = History(kept=100)
    for at in (1000, 1002, 990, 1002, 1004):
        history.add(at, {})
    assert history.columns()[0] == [1000, 1002, 1004]
    history.add(500, {})  # set back by more than the whole history: the old samples would hide the new ones for ever
    history.add(502, {})
    assert history.columns()[0] == [500, 502]
