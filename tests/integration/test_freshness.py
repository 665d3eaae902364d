"""The watermark and `wait` on real servers."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
import urllib3

from syncer.config.schema import load as load_config
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.records import Registration, StateSlot
from tests.harness.daemon import Daemon
from tests.harness.system import ORDERS as DECLARATION
from tests.harness.system import System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
ORDERS = "INSERT INTO {{schema}}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series({}, {}) n"


def staleness(daemon: Daemon, model: str) -> float | None:
    status = json.loads(daemon.get(f"/status?model={model}")[1])
    found: float | None = status["staleness_seconds"]
    return found


def wait(daemon: Daemon, model: str, token: str = "now", **options: Any) -> tuple[int, dict[str, Any]]:
    """Calls `/wait`. Returns the status and the JSON of the response."""
    query = "&".join(f"{name}={value}" for name, value in {"model": model, "token": token, **options}.items())
    status, body = daemon.get(f"/wait?{query}", timeout=65)
    return status, json.loads(body)


def write_order(system: System, number: int) -> str:
    """Writes an order as an application does. Returns the token of the transaction."""
    with system.database.connect(autocommit=False) as connection:
        connection.execute(
            f"INSERT INTO {system.schema}.orders (id, customer_id, status) VALUES ({number}, 1, 'w{number}')"
        )
        return token_of(connection)


def token_of(connection: psycopg.Connection[Any]) -> str:
    row: Any = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    return f"x:{row[0]}"


def asks_for_tokens(system: System) -> bool:
    """Returns whether a daemon has read the transaction of a token last: a caller waits for it to end."""
    asked = "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_xact_status(%' AND pid <> pg_backend_pid()"
    return bool(system.database.query(asked))


def shown(system: System, number: int) -> bool:
    """Returns whether a read by id finds the order in Elasticsearch."""
    url = f"{system.stack.elasticsearch}/{system.orders}/_doc/{number}"
    return bool(urllib3.request("GET", url).json().get("found"))


def summarized(system: System, number: int) -> bool:
    """Returns whether the summary of the customer in Redis has the order."""
    return f"w{number}" in system.documents(system.summaries).get("1", {}).get("orders", [])


@contextmanager
def write_and_wait(
    system: System, daemon: Daemon, model: str = "", shown: Callable[[System, int], bool] = shown
) -> Iterator[tuple[list[int], set[int]]]:
    """Writes orders and waits for each on a thread. Every answer 200 must be true.

    model: without it, the orders in Elasticsearch. shown: returns whether a read finds the order.
    Yields the numbers of the orders whose wait was answered with 200, and the statuses of all answers.
    """
    done, statuses = list[int](), set[int]()
    stop = threading.Event()

    def run() -> None:
        for number in itertools.count(1000):
            if stop.is_set():
                return
            status, found = wait(daemon, model or system.orders, write_order(system, number), timeout=5)
            assert status in (200, 503, 504), found
            statuses.add(status)
            if status == 200:
                assert shown(system, number), f"/wait was answered with 200, but order {number} is missing: {found}"
                done.append(number)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run)
        try:
            yield done, statuses
        finally:
            stop.set()
        running.result()


@pytest.fixture
def daemon(system: System) -> Daemon:
    """A daemon whose read models have a watermark."""
    system.execute(CUSTOMERS, ORDERS.format(1, 50))
    daemon = system.start()
    system.run("backfill")
    for model in (system.orders, system.summaries):
        until(partial(staleness, daemon, model), lambda: daemon.get("/status"))
    return daemon


def test_the_watermark_advances_on_an_idle_database(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS.format(1, 50))
    daemon = system.start()
    system.run("backfill", system.orders)
    until(lambda: (staleness(daemon, system.orders) or 99.0) < 5.0)
    first = json.loads(daemon.get(f"/status?model={system.orders}")[1])["watermark"]["taken_at"]
    until(lambda: json.loads(daemon.get(f"/status?model={system.orders}")[1])["watermark"]["taken_at"] > first)
    assert daemon.metric("syncer_staleness_seconds", model=system.orders) < 10.0


def test_there_is_no_watermark_before_the_first_backfill(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS.format(1, 5))
    daemon = system.start()
    system.until_in_sync()
    until(lambda: "backfill" in json.loads(daemon.get(f"/status?model={system.orders}")[1])["watermark_reason"])
    assert staleness(daemon, system.orders) is None


def test_a_caller_waits_for_its_own_write(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS.format(1, 5))
    daemon = system.start()
    system.run("backfill", system.orders)
    for number in range(10, 20):
        status, found = wait(daemon, system.orders, write_order(system, number), timeout=20)
        assert status == 200, found
        assert str(number) in system.documents(system.orders)


def test_several_daemons_answer_while_partitions_move_between_them(system: System, daemon: Daemon) -> None:
    with write_and_wait(system, daemon) as (done, _):
        until(lambda: len(done) >= 3)
        other = system.start()
        until(lambda: staleness(other, system.orders) is not None, lambda: other.get("/status"))
        for number in range(100, 105):
            status, found = wait(other, system.orders, write_order(system, number), timeout=20)
            assert status == 200 and shown(system, number), found
        before = len(done)
        other.kill()
        until(lambda: len(done) >= before + 3)


def test_waits_are_true_during_a_resync(system: System, daemon: Daemon) -> None:
    with write_and_wait(system, daemon) as (done, _):
        until(lambda: len(done) >= 3)
        system.run("resync", system.orders, "--yes")
        until(
            lambda: (daemon.status(system.orders)["watermark"] or {}).get("generation") == 2,
            lambda: daemon.get("/status"),
        )
        before = len(done)
        until(lambda: len(done) >= before + 3, lambda: daemon.get("/status"))


def test_waits_are_true_while_a_resync_rebuilds_redis_in_place(system: System, daemon: Daemon) -> None:
    with write_and_wait(system, daemon, system.summaries, summarized) as (done, statuses):
        until(lambda: len(done) >= 3)
        system.run("resync", system.summaries, "--yes")
        assert 503 in statuses, "nobody can wait while the documents are rebuilt"
        before = len(done)
        until(lambda: len(done) >= before + 3, lambda: daemon.get("/status"))
    status, log = daemon.status(system.summaries), daemon.log.read_text()
    assert (status["state"], status["hint"]) == ("running", ""), "the command of an error that is over"
    assert "read model failed" not in log, log


def test_waits_end_at_once_when_a_resync_switches_readers(system: System, daemon: Daemon) -> None:
    """Other processes announce the switch. Here they never finish it, as if they had died."""
    config = load_config(environ=system.environment)
    registry = open_registry(config)

    def end_by(announce: Callable[[], object], model: str) -> dict[str, Any]:
        with system.database.connect(autocommit=False) as open_transaction, ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(wait, daemon, model, token_of(open_transaction), timeout=60)
            until(lambda: asks_for_tokens(system))
            announce()
            status, found = waiting.result(timeout=15)
            assert status == 503, found
        until(lambda: wait(daemon, model, timeout=60)[0] == 503)
        return found

    registrations: dict[str, tuple[Registration, Registration]] = {}

    def register(name: str) -> None:
        [model] = loader.load_declared(config, [name])
        compiled = loader.load_checked(config, model).compiled
        names = registry.names(name, compiled.tables, 2)
        following = registry.register(compiled, names, epoch=2, generation=2, slot=StateSlot.NEXT)
        if active := registry.registered(name):
            registrations[name] = active, following

    found = end_by(lambda: register(system.summaries), system.summaries)
    assert "in place" in found["error"] and f"syncer resync {system.summaries}" in found["hint"]
    register(system.orders)
    assert wait(daemon, system.orders, timeout=20)[0] == 200, "readers use the current index until the switch"
    found = end_by(lambda: registry.announce_swap(*registrations[system.orders]), system.orders)
    assert "switching readers" in found["error"] and f"syncer resync {system.orders}" in found["hint"]
    registry.withdraw_swap(registrations[system.orders][1])
    until(lambda: wait(daemon, system.orders, timeout=20)[0] == 200)


def test_waits_end_at_once_when_their_read_model_fails(system: System, daemon: Daemon) -> None:
    registry = open_registry(load_config(environ=system.environment))
    active = registry.registered(system.orders)
    assert active
    with system.database.connect(autocommit=False) as open_transaction, ThreadPoolExecutor(2) as threads:
        token = token_of(open_transaction)
        orders = threads.submit(wait, daemon, system.orders, token, timeout=60)
        until(lambda: asks_for_tokens(system))
        summaries = threads.submit(wait, daemon, system.summaries, token, timeout=60)
        registry.record_backwards(active, "a test says so")
        status, found = orders.result(timeout=30)
        assert status == 503 and "ran backwards" in found["error"] and system.orders in found["error"], found
        status, found = wait(daemon, system.orders, timeout=60)
        assert status == 503 and "ran backwards" in found["error"], found
        assert not summaries.done(), "other read models go on"
        open_transaction.commit()
        assert summaries.result(timeout=30)[0] == 200


def test_documents_show_children_that_were_moved_or_deleted(system: System, daemon: Daemon) -> None:
    for statement in (
        "UPDATE {}.orders SET customer_id = 3 - customer_id WHERE id <= 10",
        "DELETE FROM {}.orders WHERE id BETWEEN 11 AND 20",
        "UPDATE {}.orders SET customer_id = 99 WHERE id = 21",
    ):
        with system.database.connect(autocommit=False) as connection:
            connection.execute(statement.format(system.schema).encode())
            token = token_of(connection)
        status, found = wait(daemon, system.summaries, token, timeout=20)
        assert status == 200, found
        assert system.documents(system.summaries) == system.expected(system.summaries)


def test_bad_requests_to_wait_have_a_clear_answer(system: System, daemon: Daemon) -> None:
    with system.database.connect(autocommit=False) as connection:
        rolled_back = token_of(connection)
        connection.rollback()
    for query, status, text in (
        ("token=now", 400, "model is missing"),
        ("model=nothing", 404, "does not exist"),
        (f"model={system.orders}&token=7341", 400, "neither x: nor l:"),
        (f"model={system.orders}&token=x:seven", 400, "no transaction id"),
        (f"model={system.orders}&token=l:16", 400, "no WAL position"),
        (f"model={system.orders}&token={rolled_back}@1/1", 409, "another PostgreSQL server"),
        (f"model={system.orders}&token={rolled_back}", 409, "rolled back"),
        (f"model={system.orders}&token=x:{int(rolled_back[2:]) + 1_000_000}", 400, "has not reached"),
        (f"model={system.orders}&token=l:FFFFFF/0", 400, "has not reached"),
        (f"model={system.orders}&timeout=soon", 400, "timeout"),
        (f"model={system.orders}&timeout=-1", 400, "timeout"),
        (f"model={system.orders}&timeout=nan", 400, "timeout"),
        (f"model={system.orders}&timeout=3600", 400, "timeout"),
        (f"model={system.orders}&searchable=yes", 400, "searchable"),
        (f"model={system.orders}&serchable=true", 400, "unknown parameters: serchable"),
        (f"model={system.orders}&model={system.summaries}", 400, "given more than once"),
    ):
        found, body = daemon.get(f"/wait?{query}")
        assert (found, text in body) == (status, True), f"{query}: {found} {body}"


def test_a_wait_that_times_out_says_how_far_the_documents_are(system: System, daemon: Daemon) -> None:
    with system.database.connect(autocommit=False) as open_transaction:
        status, found = wait(daemon, system.orders, token_of(open_transaction), timeout=0.2)
        assert status == 504 and found["wanted"] is None and found["reached"] and found["reason"], found


def test_a_daemon_that_stops_ends_its_waits(system: System, daemon: Daemon) -> None:
    with system.database.connect(autocommit=False) as open_transaction, ThreadPoolExecutor(1) as threads:
        token = token_of(open_transaction)
        waiting = threads.submit(wait, daemon, system.orders, token, timeout=60)
        until(lambda: asks_for_tokens(system), "the daemon does not read the token's transaction")
        daemon.stop()
        status, found = waiting.result()
        assert status == 503, found


def test_a_read_model_that_failed_has_no_waits(system: System, daemon: Daemon) -> None:
    daemon.stop()
    system.declare("orders", DECLARATION.replace("status: status", "status: upper(status)"))
    again = system.start(ready=False)
    again.until_state(system.orders, "failed")
    status, found = wait(again, system.orders, timeout=5)
    assert status == 503, found
    until(lambda: staleness(again, system.summaries) is not None)
    assert wait(again, system.summaries, timeout=20)[0] == 200
