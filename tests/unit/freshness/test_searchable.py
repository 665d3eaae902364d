"""Callers share refreshes: one that runs and one that is due."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from syncer.clock import Identity, Snapshot
from syncer.errors import Retry
from syncer.freshness.searchable import Searches
from syncer.freshness.watermark import Watermark


def watermark(clock: int) -> Watermark:
    return Watermark(1, Identity(1, 1), Snapshot(clock, clock, frozenset()), 0, 1000 * clock)


class Index:
    """A sink whose refresh takes until the test lets it end."""

    name = "index"

    def __init__(self) -> None:
        self.refreshes = 0
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.error: Exception | None = None

    def make_searchable(self, timeout: float) -> None:
        self.refreshes += 1
        self.began.release()
        assert self.may_end.acquire(timeout=10)
        if self.error:
            raise self.error


class World:
    def __init__(self) -> None:
        self.now: Watermark | None = watermark(5)
        self.index = Index()
        self.searches = Searches("orders", [self.index], lambda: self.now)

    def join(self, clock: int = 5) -> Future[Watermark]:
        return self.searches.join(watermark(clock))


def test_a_caller_joins_the_next_refresh_and_not_the_one_that_runs() -> None:
    world = World()
    first = world.join()
    assert world.index.began.acquire(timeout=10)
    later = [world.join() for _ in range(50)]
    assert not any(one.done() for one in later)
    world.index.may_end.release()
    assert first.result(10).clock == 5
    assert world.index.began.acquire(timeout=10)
    assert not any(one.done() for one in later)
    world.index.may_end.release()
    assert {one.result(10).clock for one in later} == {5}
    assert world.index.refreshes == 2


def test_a_refresh_shows_the_watermark_from_before_it_began() -> None:
    world = World()
    future = world.join()
    assert world.index.began.acquire(timeout=10)
    world.now = watermark(9)
    assert world.searches.reached is None
    world.index.may_end.release()
    assert future.result(10).clock == 5
    assert world.searches.reached == watermark(5)


def test_a_caller_whose_commit_is_known_to_be_searchable_needs_no_refresh() -> None:
    world = World()
    world.index.may_end.release()
    world.join().result(10)
    assert world.join(5).result(0) == watermark(5)
    assert world.index.refreshes == 1
    world.now = watermark(6)
    world.index.may_end.release()
    assert world.join(6).result(10) == watermark(6)
    assert world.index.refreshes == 2


def test_an_error_concerns_its_own_callers_only() -> None:
    world = World()
    world.index.error = Retry("busy")
    first = world.join()
    assert world.index.began.acquire(timeout=10)
    second = world.join()
    world.index.may_end.release()
    with pytest.raises(Retry, match="busy"):
        first.result(10)
    assert world.index.began.acquire(timeout=10)
    world.index.error = None
    world.index.may_end.release()
    assert second.result(10) == watermark(5)


def test_callers_who_wait_while_the_read_model_is_closed_are_refused() -> None:
    world = World()
    first = world.join()
    assert world.index.began.acquire(timeout=10)
    second = world.join()
    world.searches.close()
    for refused in (second, world.join()):
        with pytest.raises(Retry, match="closed"):
            refused.result(10)
    world.index.may_end.release()
    assert first.result(10) == watermark(5)


def test_a_read_model_without_a_watermark_is_not_searchable() -> None:
    world = World()
    world.now = None
    with pytest.raises(Retry, match="no watermark"):
        world.join().result(10)
    assert world.index.refreshes == 0


def test_sinks_without_refreshes_are_searchable_at_once() -> None:
    now = watermark(7)
    searches = Searches("orders", [], lambda: now)
    assert searches.reached == now
    assert searches.join(now).result(0) == now
