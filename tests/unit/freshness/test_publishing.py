"""Watermarks are published by one process, at most once per interval, and never wait for one another."""

from __future__ import annotations

import threading
from typing import Any

from syncer.clock import Identity, Snapshot
from syncer.errors import Fatal
from syncer.freshness.publishing import Publisher
from syncer.freshness.watermark import Watermark
from syncer.ports import PublishedWatermark
from tests.harness.waiting import until


def watermark(clock: int) -> Watermark:
    return Watermark(2, Identity(1, 1), Snapshot(clock - 2, clock + 1, frozenset([clock - 1])), 0x16B374D848, 1000)


class Store:
    """A sink that keeps every watermark it is given."""

    name = "store"

    def __init__(self) -> None:
        self.given: list[PublishedWatermark] = []
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None

    def publish(self, watermark: PublishedWatermark) -> None:
        assert self.open.wait(10)
        self.given.append(watermark)
        if self.error:
            raise self.error

    def published(self) -> PublishedWatermark | None:
        return self.given[-1] if self.given else None

    @property
    def clocks(self) -> list[int]:
        return [one.clock for one in self.given]


def publisher(*stores: Store, **options: Any) -> Publisher:
    given: dict[str, Any] = {"interval": 0.001, "is_leader": lambda: True, "dead_letters": lambda: 3} | options
    return Publisher("orders", 4, stores, **given)


def offer_until(one: Publisher, clock: int, store: Store) -> None:
    """Offers a watermark as the monitor does, until the store has it."""

    def published() -> bool:
        one.offer(watermark(clock), None)
        return clock in store.clocks

    until(published)


def test_a_watermark_is_published_with_all_that_belongs_to_it() -> None:
    store = Store()
    one = publisher(store)
    one.offer(watermark(9), watermark(7))
    one.close()
    assert store.given == [
        PublishedWatermark("orders", 2, 4, 9, "7:10:8", 1000, "16/B374D848", 3, 7, 1000),
    ]


def test_the_same_watermark_is_published_once() -> None:
    store = Store()
    one = publisher(store)
    offer_until(one, 9, store)
    one.offer(watermark(9), None)
    offer_until(one, 10, store)
    one.close()
    assert store.clocks == [9, 10]


def test_only_the_leader_publishes() -> None:
    store, leader = Store(), [False]
    one = publisher(store, is_leader=lambda: leader[0])
    one.offer(watermark(9), None)
    one.close()
    assert not store.given
    leader[0] = True
    offer_until(one, 9, store)


def test_nothing_is_published_more_often_than_the_interval_allows() -> None:
    store = Store()
    one = publisher(store, interval=600.0)
    for clock in (9, 10, 11):
        one.offer(watermark(clock), None)
        one.close()
    assert store.clocks == [9]


def test_an_interval_of_0_publishes_nothing() -> None:
    store = Store()
    one = publisher(store, interval=0.0)
    one.offer(watermark(9), None)
    one.close()
    assert not store.given


def test_a_slow_sink_delays_only_itself() -> None:
    slow, quick = Store(), Store()
    slow.open.clear()
    one = publisher(slow, quick)
    for clock in (9, 10, 11):
        offer_until(one, clock, quick)
    slow.open.set()
    offer_until(one, 12, slow)
    assert quick.clocks[:3] == [9, 10, 11] and slow.clocks == [9, 12]


def test_a_sink_that_refuses_gets_the_next_watermark() -> None:
    store = Store()
    store.error = Fatal("no permission")
    one = publisher(store)
    offer_until(one, 9, store)
    offer_until(one, 10, store)
    assert store.clocks == [9, 10]
