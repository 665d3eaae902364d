"""A resync that is interrupted changes nothing; one broken declaration stops no other read model."""

from __future__ import annotations

import subprocess
import sys

import urllib3

from tests.integration.daemon import until
from tests.integration.system import SUMMARIES, System

ROWS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 500) n",
)


def read_index(system: System) -> list[str]:
    return list(urllib3.request("GET", f"{system.stack.elasticsearch}/_alias/{system.orders}").json())


def test_an_interrupted_resync_leaves_what_is_read_in_step(system: System) -> None:
    system.execute(*ROWS)
    system.run("backfill")
    daemon = system.start()
    resync = subprocess.Popen(
        [sys.executable, "-m", "syncer", "resync", system.orders, "--yes"],
        env=system.environment, cwd=system.folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    state = system.state()
    until(lambda: state.load().get(f"{system.orders}/next"))
    resync.kill()
    resync.wait()

    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    system.until_right()
    assert read_index(system) == [f"{system.orders}-000001"]
    assert system.told(system.orders)["generation"] == 1
    daemon.until_ready()

    system.run("resync", system.orders, "--yes")
    [now] = read_index(system)
    assert now > f"{system.orders}-000001"
    system.execute("DELETE FROM {schema}.orders WHERE id % 3 = 0")
    system.until_right()
    assert "ghosts" in system.run("verify")


def test_events_of_before_a_column_was_renamed_do_not_stop_the_resync(system: System) -> None:
    """They lack the column that links. What they tell was committed before the resync began, so its backfill
    has it."""
    system.execute(*ROWS)
    system.run("backfill")
    daemon = system.start()
    system.execute("UPDATE {schema}.orders SET status = 'paid' WHERE id < 9")
    system.until_right()
    daemon.stop()
    documents = system.expected(system.summaries)
    system.execute("ALTER TABLE {schema}.orders RENAME customer_id TO buyer_id")
    system.declare("summaries", SUMMARIES.replace("on: {{customer_id: id}}", "on: {{buyer_id: id}}"))
    system.run("resync", system.summaries, "--yes")
    assert system.written(system.summaries) == documents
    daemon = system.start(system.summaries)
    system.execute("DELETE FROM {schema}.orders WHERE buyer_id = 1")
    until(lambda: system.written(system.summaries)["1"]["orders"] == [])
    assert daemon.status(system.summaries)["state"] == "running"


def test_one_broken_declaration_stops_no_other(system: System) -> None:
    system.declare("broken", "name: broken\nroot: [what\n")
    daemon = system.start(ready=False)
    for model in (system.orders, system.summaries):
        daemon.until_state(model, "running")
    system.execute(*ROWS)
    system.until_right()
    status, why = daemon.get("/readyz")
    assert status == 503
    assert "broken.yaml" in why
    assert "broken.yaml" in system.run("check", expect=1)
