"""A root that changes often is rendered at once, and then once per interval."""

from __future__ import annotations

from syncer.pipeline.hot_roots import HotRoots

A, B = ("a",), ("b",)


def test_the_first_change_is_rendered_at_once_and_others_within_the_interval_later() -> None:
    hot = HotRoots(2.0)
    assert hot.split([A, B], 10.0) == ([A, B], [])
    assert hot.split([A], 11.9) == ([], [A])  # rendered at 13.9
    assert hot.split([B], 12.0) == ([B], [])
    assert hot.split([A], 15.8) == ([], [A])
    assert hot.split([A], 19.8) == ([A], [])


def test_a_quiet_root_is_forgotten() -> None:
    hot = HotRoots(1.0)
    for second in range(1000):
        hot.split([(str(second),)], 2.0 * second)
    assert len(hot) < 10
    hot.split([A], 10_000.0)
    assert len(hot) == 1


def test_a_root_is_remembered_over_the_end_of_a_period() -> None:
    hot = HotRoots(1.0)
    hot.split([A], 0.0)
    hot.split([B], 1.9)
    assert hot.split([B], 2.1) == ([], [B])
    assert hot.split([B], 4.05) == ([], [B])


def test_a_busy_root_delays_all_its_partials() -> None:
    hot = HotRoots(1.0, 1)
    first, second, other = ("a", "1"), ("a", "2"), ("b", "1")
    assert hot.split([first, second], 100.0) == ([first, second], [])
    assert hot.split([other, second, first], 100.5) == ([other], [second, first])
    assert len(hot) == 2
