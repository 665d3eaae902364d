"""Stage 9: the lag in records and in seconds."""

from __future__ import annotations

from syncer.events import Position
from syncer.pipeline.lag import Lag


def test_lag_is_the_age_of_the_oldest_waiting_change() -> None:
    lag = Lag()
    lag.update({("t", 0): (0, 10), ("t", 1): (0, 0)}, 1_000)
    assert lag.records == 10
    assert lag.seconds(3_000) == 2.0, "not polled yet: since the record was first seen"
    lag.acknowledged(Position("t", 0, 4), 2_500)
    lag.polled(Position("t", 0, 9), 2_600)
    lag.update({("t", 0): (10, 10), ("t", 1): (0, 0)}, 3_000)
    assert lag.records == 5, "polled and not acknowledged counts"
    assert lag.seconds(3_000) == 0.4
    lag.idle({("t", 0): (10, 10), ("t", 1): (0, 0)})
    lag.update({("t", 0): (10, 10), ("t", 1): (0, 0)}, 8_000)
    assert (lag.records, lag.seconds(9_000)) == (0, 0.0)
    lag.update({("t", 0): (10, 11), ("t", 1): (0, 0)}, 9_000)
    assert lag.seconds(9_000) == 1.0, "not since the last change, hours ago"


def test_a_change_that_arrives_late_is_as_old_as_its_commit() -> None:
    """The connector delivered nothing for a minute. Its next change is a minute old, although no record waited."""
    lag = Lag()
    lag.update({("t", 0): (5, 5)}, 100_000)
    lag.polled(Position("t", 0, 6), 40_000)
    lag.update({("t", 0): (7, 7)}, 100_100)
    assert lag.seconds(100_100) == 60.1
    lag.acknowledged(Position("t", 0, 6), 99_000)
    lag.update({("t", 0): (7, 7)}, 100_200)
    assert lag.seconds(100_200) == 0.0


def test_a_partition_with_rare_changes_has_no_lag_between_them() -> None:
    """Other partitions are always busy, so the lane is never idle."""
    lag = Lag()
    lag.acknowledged(Position("t", 0, 0), 1_000)
    lag.update({("t", 0): (1, 1), ("t", 1): (0, 9)}, 60_000)
    lag.polled(Position("t", 1, 8), 60_000)
    lag.update({("t", 0): (1, 2), ("t", 1): (9, 9)}, 60_100)
    assert lag.seconds(60_100) == 0.1


def test_a_partition_that_is_assigned_again_forgets_its_earlier_lag() -> None:
    lag = Lag()
    lag.update({("t", 0): (0, 1)}, 1_000)
    lag.update({}, 2_000)
    assert lag.seconds(50_000) == 0.0
    lag.update({("t", 0): (0, 1)}, 60_000)
    assert lag.seconds(60_500) == 0.5


def test_changes_before_the_read_model_began_are_no_lag() -> None:
    """A read model that was 10 s old reported 594.8 s, because it reads ten minutes back for open transactions."""
    lag = Lag(floor_ms=600_000)
    lag.polled(Position("t", 0, 9), 15_200)
    lag.update({("t", 0): (10, 10)}, 610_000)
    assert lag.seconds(610_000) == 10.0


def test_an_unfinished_fan_out_is_lag_since_the_commit_of_its_cause() -> None:
    """After 5 customers were renamed, 32,000 documents were stale for 14 s, and the lag was 0.0."""
    lag = Lag(items=["w"])
    lag.update({("w", 0): (0, 16), ("w", 1): (0, 16)}, 1_000)
    assert lag.seconds(1_000) == 0.0, "the age of a work item is unknown before it is polled"
    lag.polled(Position("w", 0, 7), 500)
    lag.update({("w", 0): (8, 16), ("w", 1): (0, 16)}, 3_000)
    assert lag.seconds(3_000) == 2.5
    lag.acknowledged(Position("w", 0, 7), 0)
    lag.update({("w", 0): (8, 16), ("w", 1): (16, 16)}, 5_000)
    assert lag.seconds(5_000) == 4.5, "the next item belongs to the same fan-out"
    lag.idle({("w", 0): (16, 16), ("w", 1): (16, 16)})
    lag.update({("w", 0): (16, 16), ("w", 1): (16, 16)}, 6_000)
    assert (lag.records, lag.seconds(6_000)) == (0, 0.0)


def test_work_items_without_a_cause_are_no_lag() -> None:
    """For example, the range of a backfill, or a sweep that returns to the queue until it is due."""
    lag = Lag(items=["w"])
    lag.polled(Position("w", 0, 0), 500)
    lag.acknowledged(Position("w", 0, 0), 0)
    for at in range(1, 100):
        lag.polled(Position("w", 0, at), 0)
        lag.update({("w", 0): (at + 1, at + 2)}, 1_000 * at)
        assert lag.seconds(1_000 * at) == 0.0
        lag.acknowledged(Position("w", 0, at), 0)
