"""Stage 8: which offsets are committed, and when."""

from __future__ import annotations

from syncer.pipeline.offsets import Offsets


def test_offsets_are_due_after_the_interval_and_returned_once() -> None:
    offsets = Offsets(1.0)
    assert not offsets.due(100.0)
    offsets.acknowledged({("t", 0): 6, ("t", 1): 1}, 10.0)
    assert not offsets.due(10.9)
    assert offsets.due(11.0)
    assert offsets.take() == {("t", 0): 6, ("t", 1): 1}
    assert offsets.take() == {}
    assert not offsets.due(99.0)


def test_a_lane_that_has_caught_up_commits_sooner() -> None:
    offsets = Offsets(1.0)
    offsets.acknowledged({("t", 0): 6}, 10.0)
    assert not offsets.due(10.2)
    assert offsets.due(10.2, idle=True)


def test_a_lane_that_has_its_group_for_itself_commits_at_the_interval() -> None:
    """Nobody waits for its commits. Under a light load, it would commit ten times a second."""
    offsets = Offsets(1.0)
    offsets.shared = False
    offsets.acknowledged({("t", 0): 6}, 10.0)
    assert not offsets.due(10.9, idle=True)
    assert offsets.due(11.0, idle=True)


def test_an_idle_lane_does_not_commit_again_what_did_not_move() -> None:
    offsets = Offsets(0.0)
    offsets.acknowledged({("t", 0): 6}, 10.0)
    offsets.take()
    offsets.idle({("t", 0): 6}, 11.0)
    assert offsets.take() == {}
    offsets.idle({("t", 0): 7}, 12.0)
    assert offsets.take() == {("t", 0): 7}


def test_a_record_that_comes_again_is_committed_again() -> None:
    """A rebalance refused the first commit, and Kafka assigned the partition again from its old offset."""
    offsets = Offsets(0.0)
    for _ in range(2):
        offsets.acknowledged({("t", 0): 6}, 10.0)
        assert offsets.take() == {("t", 0): 6}


def test_records_that_come_again_are_committed_again_and_reach_nothing_new() -> None:
    offsets = Offsets(0.0)
    offsets.acknowledged({("t", 0): 6}, 10.0)
    offsets.take()
    offsets.acknowledged({("t", 0): 3}, 11.0)
    assert offsets.take() == {("t", 0): 3}
    assert offsets.reached == {("t", 0): 6}
