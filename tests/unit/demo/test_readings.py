"""The readings that the example `devices` sends, and how their staleness is measured."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from demo.readings import HOT, LATEST, readings
from demo.screen import Failed
from demo.staleness import Sent, ages, last

NOW = datetime(2026, 11, 29, 12, 30, tzinfo=UTC)


def test_one_device_sends_forty_percent_and_some_readings_are_late() -> None:
    numbers = dict.fromkeys(range(1, 1001), 5)
    sent = list(readings(random.Random(1), 20_000, numbers, NOW))
    devices = Counter(reading.device for reading in sent)
    assert 0.38 < devices[HOT] / len(sent) < 0.42
    assert set(devices) <= set(range(1, 1001)) and len(devices) > 990
    late = [reading for reading in sent if reading.taken_at < NOW]
    assert 0.04 < len(late) / len(sent) < 0.06
    assert all(reading.taken_at >= NOW - LATEST for reading in late)
    hot = [reading.number for reading in sent if reading.device == HOT]
    assert hot == list(range(6, 6 + len(hot))) and numbers[HOT] == hot[-1]
    assert all((reading.temperature is None) == (reading.error is not None) for reading in sent)


def test_a_reading_names_the_document_of_its_hour() -> None:
    [reading] = readings(random.Random(4), 1, {1: 0, 2: 0}, NOW)
    assert reading.taken_at == NOW and reading.group == f"{reading.device}|2026-11-29 12:00:00+00"


def test_the_age_runs_from_a_commit_until_the_document_shows_it_or_a_later_one() -> None:
    commits = [(10.0, {"a": 1, "b": 2}), (11.0, {"a": 5}), (12.0, {"c": 9})]
    seen = {"a": [(9.0, 0), (11.5, 7)], "b": [(10.25, 2)]}
    assert ages(commits, seen) == [0.25, 0.5, 1.5]
    assert last(commits) == {"a": 5, "b": 2, "c": 9}


def test_a_document_that_never_shows_a_commit_is_an_error() -> None:
    with pytest.raises(Failed, match="never showed the reading 8"):
        ages([(10.0, {"a": 8})], {"a": [(11.0, 7)]})


def test_the_newest_reading_of_a_device_is_that_of_all_its_hours() -> None:
    sent = Sent([(1.0, {"1|x": 4, "1|y": 9, "2|x": 5})], 3, 1.0, 0.1)
    assert sent.by_device() == [(1.0, {"1": 9, "2": 5})]
