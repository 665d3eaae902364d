"""A read model with `min_interval`: a root that changes often is rendered seldom, and its last state always arrives."""

from __future__ import annotations

import json

import pytest

from tests.harness.daemon import Daemon
from tests.harness.system import SUMMARIES, System
from tests.harness.waiting import until

ROWS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 20) n",
)
_CHANGES = 40


@pytest.fixture
def hot(system: System) -> System:
    """The summaries, with an interval of two seconds."""
    system.declare("summaries", SUMMARIES + "min_interval: 2s\n")
    system.execute(*ROWS)
    return system


def written(daemon: Daemon, system: System) -> float:
    return daemon.metric("syncer_documents_total", model=system.summaries, result="written")


def change(system: System, value: str) -> str:
    """Changes an order of customer 1. Returns the token of the transaction."""
    with system.database.connect() as connection:
        connection.execute(f"UPDATE {system.schema}.orders SET status = '{value}' WHERE id = 2")
        [(xid,)] = connection.execute("SELECT pg_current_xact_id()::text").fetchall()
        connection.commit()
    return f"x:{xid}"


def test_a_root_that_changes_often_is_rendered_once_per_interval(hot: System) -> None:
    daemon = hot.start(hot.summaries)
    hot.run("backfill", hot.summaries)
    hot.until_in_sync(hot.summaries)
    until(lambda: daemon.status(hot.summaries)["lag_records"] == 0)
    before = written(daemon, hot)
    for number in range(_CHANGES):
        token = change(hot, f"status {number}")
        until(lambda: daemon.metric("syncer_lag_records", model=hot.summaries, lane="changes") == 0)
    status, body = daemon.get(f"/wait?model={hot.summaries}&token={token}&timeout=60", timeout=65)
    assert (status, json.loads(body)["model"]) == (200, hot.summaries)
    assert hot.documents(hot.summaries) == hot.expected(hot.summaries), "a caller of /wait sees the last change"
    delayed = daemon.metric("syncer_roots_delayed_total", model=hot.summaries)
    assert delayed and written(daemon, hot) - before < _CHANGES - delayed / 2
    until(lambda: daemon.status(hot.summaries)["work_records"] == 0, lambda: daemon.status(hot.summaries))


def test_a_delayed_root_survives_the_process_and_the_end_of_the_interval(hot: System) -> None:
    daemon = hot.start(hot.summaries)
    hot.run("backfill", hot.summaries)
    hot.until_in_sync(hot.summaries)

    def has_delayed() -> bool:
        change(hot, f"status {daemon.metric('syncer_events_total', model=hot.summaries)}")
        return daemon.metric("syncer_roots_delayed_total", model=hot.summaries) > 0

    until(has_delayed)
    daemon.kill()
    hot.declare("summaries", SUMMARIES)  # without an interval; the items of the old process are still rendered
    daemon = hot.start(hot.summaries)
    hot.until_in_sync(hot.summaries)
    until(lambda: hot.status_of(hot.summaries)["work_records"] == 0, lambda: hot.status_of(hot.summaries))
    assert "equal" in hot.run("verify", hot.summaries)


DIVIDED = """
name: {summaries}
root: {{table: {schema}.customers}}
relations: {{orders: {{many: {schema}.orders, on: {{customer_id: id}}, partials: {{by: id, size: 4}}}}}}
document: {{name: name, orders: count(orders), total: sum(orders.amount)}}
min_interval: 2s
sink: {{redis: {{key: "{prefix}:summary:{{id}}"}}}}
"""


def test_a_busy_root_delays_all_its_partials(system: System) -> None:
    system.declare("summaries", DIVIDED)
    system.execute("CREATE INDEX ON {schema}.orders (customer_id, id)", *ROWS)
    daemon = system.start(system.summaries)
    system.run("backfill", system.summaries)
    until(lambda: "equal" in system.invoke("verify", system.summaries).output)
    before = written(daemon, system)
    for number in range(_CHANGES):  # each in another bucket of the same customer
        with system.database.connect() as connection:
            connection.execute(f"UPDATE {system.schema}.orders SET amount = {number} WHERE id = {2 + number % 5 * 4}")
        until(lambda: daemon.metric("syncer_lag_records", model=system.summaries, lane="changes") == 0)
    delayed = daemon.metric("syncer_roots_delayed_total", model=system.summaries)
    assert delayed > _CHANGES / 2
    until(lambda: daemon.status(system.summaries)["work_records"] == 0, lambda: daemon.status(system.summaries))
    assert "equal" in system.run("verify", system.summaries)
    assert written(daemon, system) - before < _CHANGES - delayed / 2


def test_an_interval_that_makes_no_sense_is_refused(system: System) -> None:
    for value, words in (("2 weeks", "must be a duration"), ("90s", "at most 1m (60 seconds)"), ("0", "greater than")):
        system.declare("summaries", SUMMARIES + f"min_interval: {value}\n")
        output = system.run("check", system.summaries, expect=1)
        assert "min_interval" in output and words in output, output
