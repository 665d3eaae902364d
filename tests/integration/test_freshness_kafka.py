"""The watermark and `wait` when Kafka acknowledges late, and with exactly-once delivery."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import devstack
from devstack import Stack
from syncer.connect.client import Connect
from tests.conftest import temporary_home
from tests.harness.connector import definition, streaming
from tests.harness.daemon import Daemon
from tests.harness.database import fresh_database
from tests.harness.more_servers import SECOND, SlowBroker, create_on, exactly_once_connect, slow_broker
from tests.harness.names import fresh_names
from tests.harness.system import Source, System, new_system, streaming_source
from tests.harness.waiting import remaining, until
from tests.integration.test_freshness import CUSTOMERS, ORDERS, shown, staleness, wait, write_order

STALLING = 25.0
"""Seconds for which writers write while the second broker stalls again and again."""


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """A stack that may get a second broker."""
    started = devstack.start(temporary_home(), ephemeral=True)
    try:
        yield started
    finally:
        started.remove()


def write_and_wait(system: System, daemon: Daemon, numbers: Iterator[int], seconds: float) -> int:
    """Writes orders and waits for each. Each answer 200 must be true. Returns the number of these answers."""
    done = 0
    for _ in remaining(time.monotonic() + seconds, pause=0.0):
        number = next(numbers)
        status, found = wait(daemon, system.orders, write_order(system, number), timeout=4)
        assert status in (200, 504), found
        if status == 200:
            assert shown(system, number), f"/wait was answered with 200, but order {number} is missing: {found}"
            done += 1
    return done


def stall_at_times(broker: SlowBroker, stop: threading.Event) -> int:
    """Stalls the broker for up to 1.5 s again and again. Returns how often."""
    choose, stalls = random.Random(13), 0
    while not stop.wait(choose.uniform(0.05, 0.4)):
        broker.stall()
        stop.wait(choose.uniform(0.2, 1.5))
        broker.resume()
        stalls += 1
    return stalls


@pytest.mark.full
def test_a_change_that_a_slow_broker_has_not_acknowledged_is_not_fresh(own_stack: Stack, tmp_path: Path) -> None:
    with slow_broker(own_stack) as broker, streaming_source(own_stack) as source, new_system(source, tmp_path, 1) as s:
        create_on(own_stack, f"{s.topic_prefix}.message", 1)
        create_on(own_stack, s.topic("customers"), 1)
        create_on(own_stack, s.topic("orders"), 1, SECOND)
        s.execute(CUSTOMERS, ORDERS.format(1, 50))
        daemon = s.start()
        s.run("backfill", s.orders)
        until(lambda: staleness(daemon, s.orders) is not None)
        numbers, stop = iter(range(1000, 100_000)), threading.Event()
        with ThreadPoolExecutor(5) as threads:
            stalls = threads.submit(stall_at_times, broker, stop)
            callers = [threads.submit(write_and_wait, s, daemon, numbers, STALLING) for _ in range(4)]
            try:
                done = sum(caller.result() for caller in callers)
            finally:
                stop.set()
        assert done >= 20 and stalls.result() >= 5 and broker.held >= 5, (done, stalls.result(), broker.held)
        print(f"{done} waits were answered with 200 in {stalls.result()} stalls; {broker.held} requests were held")


@pytest.fixture(scope="module")
def exactly_once(stack: Stack) -> Iterator[tuple[Source, str, str]]:
    """A database that a connector streams in transactions, the URL of its worker, and its topic of offsets."""
    with (
        exactly_once_connect(stack) as (url, offsets),
        fresh_names(stack) as names,
        fresh_database(stack) as database,
    ):
        database.execute("CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)")
        settings = {"table__include__list": r".*\..*", "exactly__once__support": "required"}
        wanted, connect = definition(database, names, **settings), Connect(url)
        with streaming(stack, connect, wanted, database):
            yield Source(stack, database, names, wanted), url, offsets
        connect.close()


@pytest.mark.full
def test_the_watermark_advances_with_exactly_once_delivery(
    exactly_once: tuple[Source, str, str], tmp_path: Path
) -> None:
    source, url, offsets = exactly_once
    with new_system(source, tmp_path, 1) as system:
        system.environment |= {"SYNCER_CONNECT__URL": url, "SYNCER_CONNECT__OFFSET_TOPIC": offsets}
        system.execute(CUSTOMERS, ORDERS.format(1, 50))
        daemon = system.start()
        system.run("backfill", system.orders)
        until(lambda: (staleness(daemon, system.orders) or 99.0) < 5.0, lambda: daemon.get("/status"))
        first = daemon.status(system.orders)["watermark"]["taken_at"]
        until(lambda: daemon.status(system.orders)["watermark"]["taken_at"] > first)
        for number in range(100, 120):
            status, found = wait(daemon, system.orders, write_order(system, number), timeout=20)
            assert status == 200, found
            assert shown(system, number)
