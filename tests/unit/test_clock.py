"""The snapshot clock: its arithmetic, the visibility rule of the gate, and the checks of `Clock`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer.clock import Beginning, Clock, Identity, Snapshot, split_version, version
from syncer.errors import Fatal

HOME = Identity(7, 1)


def test_the_clock_counts_completed_transactions() -> None:
    assert Snapshot.parse("10:20:12,13").clock == 18
    assert Snapshot.parse("20:20:").clock == 20


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms())
def test_the_clock_grows_with_every_completion_and_never_falls(steps: list[bool], random: object) -> None:
    """Transactions begin and end in any order. The clock never falls, and grows exactly when one ends."""
    running: list[int] = []
    next_xid, xmax, before = 100, 100, 100
    for begin in steps:
        if begin or not running:
            running.append(next_xid)
            next_xid += 1
            ended = False
        else:
            done = running.pop(random.randrange(len(running)))  # type: ignore[attr-defined]
            xmax, ended = max(xmax, done + 1), True
        seen = Snapshot(min(running, default=xmax), xmax, frozenset(x for x in running if x < xmax))
        assert seen.clock >= before
        assert (seen.clock > before) == ended
        before = seen.clock


def test_hazard_10_an_events_32_bit_id_is_widened_to_the_nearest_possible() -> None:
    around = Snapshot.parse(f"{(5 << 32) + 10}:{(5 << 32) + 20}:")
    assert around.widen(15) == (5 << 32) + 15
    assert around.widen((1 << 32) - 1) == (5 << 32) - 1, "just before the wrap-around"
    assert around.widen((1 << 30) + 19) == (5 << 32) + (1 << 30) + 19, "ahead of the snapshot, by less than a quarter"
    assert around.widen((1 << 30) + 20) == (4 << 32) + (1 << 30) + 20, "never further ahead"
    assert around.widen((9 << 32) + 15) == (5 << 32) + 15, "the high half is ignored"
    assert Snapshot.parse("700:710:").widen(705) == 705
    assert Snapshot.parse("700:710:").widen((1 << 32) - 5) == (1 << 32) - 5, "no id below zero"


def test_the_backfill_covers_transactions_that_ended_before_the_read_model_began() -> None:
    wrap = 5 << 32
    around = Beginning(Snapshot.parse(f"{wrap + 10}:{wrap + 20}:{wrap + 10},{wrap + 15}"), 1000)
    assert around.covers(9, 990)
    assert around.covers(16, 1000)
    assert not around.covers(15, 990), "it was in progress then"
    assert not around.covers(20, 990), "it began later"
    assert not around.covers(9, 1001), "its id is from after a wrap-around"


@given(st.integers(0, 1 << 47), st.integers(-(1 << 31), (1 << 30) - 1))
def test_widening_restores_every_id_within_reach(xmax: int, distance: int) -> None:
    wide = xmax + distance
    if wide >= 0:
        assert Snapshot(xmax, xmax, frozenset()).widen(wide & 0xFFFFFFFF) == wide


def test_the_gate_waits_for_transactions_that_are_not_completed() -> None:
    seen = Snapshot.parse("10:20:12,13")
    assert seen.unseen([9, 10, 11, 14, 19]) == []
    assert seen.unseen([12, 19, 20, 13]) == [12, 20, 13]


def test_versions_order_by_epoch_then_clock() -> None:
    assert version(1, 5) < version(1, 6) < version(2, 0)
    assert split_version(version(3, 77)) == (3, 77)
    assert version((1 << 15) - 1, (1 << 48) - 1) < 1 << 63
    for epoch, clock in ((0, 1), (1 << 15, 1), (1, 1 << 48)):
        with pytest.raises(Fatal):
            version(epoch, clock)


def test_hazard_11_another_history_stops_the_read_model() -> None:
    clock = Clock(1, HOME, 100)
    for other in (Identity(8, 1), Identity(7, 2)):
        with pytest.raises(Fatal, match="another history") as error:
            clock.version(other, 200, floor=100, model="orders")
        assert "syncer resync orders" in str(error.value)


def test_a_clock_that_runs_backwards_stops_the_read_model() -> None:
    clock = Clock(1, HOME, 100)
    with pytest.raises(Fatal, match="ran backwards"):
        clock.version(HOME, 99, floor=clock.highest, model="orders")
    assert clock.version(HOME, 100, floor=clock.highest, model="orders") == version(1, 100)


def test_a_clock_that_ran_backwards_is_reported_once_to_be_stored() -> None:
    reported: list[Fatal] = []
    clock = Clock(1, HOME, 100, backwards=reported.append)
    with pytest.raises(Fatal) as raised:
        clock.version(HOME, 99, floor=clock.highest, model="orders")
    assert reported == [raised.value]
    with pytest.raises(Fatal, match="another history"):
        clock.version(Identity(8, 1), 200, floor=100, model="orders")
    assert reported == [raised.value], "another identity needs no record, because it stays different"


def test_a_snapshot_older_than_another_threads_snapshot_is_accepted() -> None:
    clock = Clock(1, HOME, 100)
    floor = clock.highest
    clock.version(HOME, 120, floor=floor, model="orders")
    clock.durable(120)
    assert clock.version(HOME, 110, floor=floor, model="orders") == version(1, 110)
    clock.durable(110)
    assert clock.highest == 120


def test_a_crash_that_loses_unflushed_transactions_is_accepted() -> None:
    clock = Clock(1, HOME, 100)
    clock.version(HOME, 130, floor=clock.highest, model="orders")
    assert clock.version(HOME, 125, floor=clock.highest, model="orders") == version(1, 125)
