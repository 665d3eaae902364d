"""Resyncs: an interrupted one changes nothing, and a finished one leaves no older documents.

Also tests a broken declaration, which must not stop other read models.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3
from prometheus_client import CollectorRegistry

from syncer.config.schema import load as load_config
from syncer.errors import Fatal, Retry
from syncer.events import WorkItem
from syncer.monitors import model_progress
from syncer.operations.backfill import Backfill
from syncer.operations.catch_up import caught_up
from syncer.operations.resync import resync as run_resync
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.records import Registration, StateSlot
from syncer.telemetry.metrics import Metrics
from tests.harness.daemon import Daemon
from tests.harness.system import SUMMARIES, System
from tests.harness.waiting import until

ROWS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 500) n",
)


def read_index(system: System) -> list[str]:
    return list(urllib3.request("GET", f"{system.stack.elasticsearch}/_alias/{system.orders}").json())


def test_an_interrupted_resync_leaves_the_read_index_in_sync(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.execute(*ROWS)
    system.run("backfill")
    daemon = system.start()
    resync = subprocess.Popen(
        [sys.executable, "-m", "syncer", "resync", system.orders, "--yes"],
        env=system.environment,
        cwd=system.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    state = system.state_store()
    until(lambda: state.load().get(f"{system.orders}/2/registration"))
    until(lambda: system.status_of(system.orders)["resync"]["running"], lambda: system.status_of(system.orders))
    status = system.status_of(system.orders)
    assert (status["state"], status["resync"]["generation"]) == ("running", 2)
    until(lambda: state.load().get(f"{system.orders}/2/backfill"))
    resync.kill()
    resync.wait()
    monkeypatch.setattr(model_progress, "_ALIVE_MS", 5000)  # of the commands below, which run in this process
    until(lambda: system.status_of(system.orders)["resync"]["running"] is False)
    status = system.status_of(system.orders)
    assert 0 <= status["resync"]["percent"] <= 100
    assert f"{system.orders}: a resync was interrupted" in status["notes"][0]
    until(lambda: system.is_healthy(system.orders), lambda: system.status_of(system.orders))

    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    system.until_in_sync()
    assert read_index(system) == [f"{system.orders}-000001"]
    assert system.status_of(system.orders)["generation"] == 1
    daemon.until_ready()

    output = system.run("resync", system.orders, "--yes")
    [now] = read_index(system)
    assert now > f"{system.orders}-000001"
    assert f"safe to delete when no reader uses them: {system.orders}-000001" in output
    until(lambda: system.status_of(system.orders)["healthy"], lambda: system.status_of(system.orders))
    readers_of_an_old_index(system, daemon, now)
    assert "True" not in output  # no boolean is printed as a number
    system.execute("DELETE FROM {schema}.orders WHERE id % 3 = 0")
    system.until_in_sync()
    assert "orphaned" in system.run("verify")


def readers_of_an_old_index(system: System, daemon: Daemon, now: str) -> None:
    """Moves the alias to the old index by hand. Every command reports it, and the printed command corrects it."""
    old, model = f"{system.orders}-000001", system.orders
    actions = [{verb: {"index": index, "alias": model}} for verb, index in (("remove", now), ("add", old))]
    urllib3.request("POST", f"{system.stack.elasticsearch}/_aliases", json={"actions": actions})
    says = f"readers of {model} see {old}, but the syncer writes to {now}"
    until(lambda: says in daemon.status(model)["reason"], lambda: daemon.status(model))
    assert daemon.status(model)["state"] == "waiting" and daemon.ready() is False
    assert daemon.metric("syncer_readers_elsewhere", model=model) == 1
    until(lambda: says in system.status_of(model)["reason"], lambda: system.status_of(model))
    assert system.status_of(model)["state"] == "waiting"
    for command in ("check", "status", "verify"):
        output = system.run(command, model, expect=1)
        assert says in output, output
    assert says in system.status_of(model)["reason"]
    command = "curl" + output.partition("→ curl")[2].splitlines()[0]
    urllib3.request(
        "POST",
        f"{system.stack.elasticsearch}/_aliases",
        headers={"Content-Type": "application/json"},
        body=shlex.split(command)[-1],
    )
    assert read_index(system) == [now]
    daemon.until_ready()
    assert daemon.metric("syncer_readers_elsewhere", model=model) == 0


def test_events_older_than_a_column_rename_do_not_stop_the_resync(system: System) -> None:
    """The old events lack the link column.

    Their changes were committed before the resync started, so the backfill includes them.
    """
    system.execute(*ROWS)
    system.run("backfill")
    daemon = system.start()
    system.execute("UPDATE {schema}.orders SET status = 'paid' WHERE id < 9")
    system.until_in_sync()
    daemon.stop()
    documents = system.expected(system.summaries)
    system.execute("ALTER TABLE {schema}.orders RENAME customer_id TO buyer_id")
    system.declare("summaries", SUMMARIES.replace("on: {{customer_id: id}}", "on: {{buyer_id: id}}"))
    system.run("resync", system.summaries, "--yes")
    assert system.documents(system.summaries) == documents
    daemon = system.start(system.summaries)
    system.execute("DELETE FROM {schema}.orders WHERE buyer_id = 1")
    until(lambda: system.documents(system.summaries)["1"]["orders"] == [])
    assert daemon.status(system.summaries)["state"] == "running"


def test_readers_are_not_switched_to_a_generation_with_pending_work(system: System) -> None:
    """Fan-outs and renders after an alteration are on the work topic.

    Until they are committed, their documents are old. A sweep that is due later is left to the daemon.
    """
    system.execute(*ROWS)
    config = load_config(environ=system.environment)
    [model] = loader.load_declared(config, [system.orders])
    registry, compiled = open_registry(config), loader.load_checked(config, model).compiled
    names = registry.names(model.name, compiled.tables, 1)
    registry.register(compiled, names, epoch=1, generation=1, slot=StateSlot.NEXT)
    work, later = registry.work_queue(names), time.time_ns() // 1_000_000 + 3_600_000
    work.put(WorkItem("sweep", "altered", not_before_ms=later))
    for start in range(1, 500, 10):
        work.put(WorkItem("keys", "fan-out", keys=tuple((str(id),) for id in range(start, start + 10))))
    work.put(WorkItem("sweep", "altered"))
    work.flush()
    ends = work.ends()
    with caught_up(config, model, registry, Metrics(CollectorRegistry()), names, lambda _: None):
        assert sum(ends.values()) == 52 and work.left(ends) == 0
        index = f"{system.orders}-000001"
        urllib3.request("POST", f"{system.stack.elasticsearch}/{index}/_refresh")
        count = urllib3.request("GET", f"{system.stack.elasticsearch}/{index}/_count").json()["count"]
        assert count == 500


def test_a_backfill_is_not_planned_if_the_tables_were_altered_after_compilation(system: System) -> None:
    config = load_config(environ=system.environment)
    [model] = loader.load_declared(config, [system.orders])
    registry, loaded = open_registry(config), loader.load_checked(config, model)
    opened = registry.open(loaded.compiled)
    system.execute("ALTER TABLE {schema}.orders ALTER amount TYPE bigint")
    with pytest.raises(Retry, match="the tables were altered"):
        Backfill(config, model, registry).plan(loaded, opened.names, lambda _: None)


def test_a_rate_limited_backfill_uses_ranges_of_about_one_second(system: System) -> None:
    system.execute(*ROWS)
    config = load_config(environ=system.environment)
    [model] = loader.load_declared(config, [system.orders])
    registry, loaded = open_registry(config), loader.load_checked(config, model)
    names = registry.open(loaded.compiled).names
    partitions = len(registry.backfill_queue(names).ends())
    backfill = Backfill(config, model, registry, rate=20.0 * partitions)
    assert backfill.plan(loaded, names, lambda _: None).items == 500 / 20


def test_a_broken_declaration_does_not_stop_other_read_models(system: System) -> None:
    system.declare("broken", "name: broken\nroot: [what\n")
    daemon = system.start(ready=False)
    for model in (system.orders, system.summaries):
        daemon.until_state(model, "running")
    system.execute(*ROWS)
    system.until_in_sync()
    status, why = daemon.get("/readyz")
    assert status == 503
    assert "broken.yaml" in why
    assert "broken.yaml" in system.run("check", expect=1)


def test_a_resync_that_was_frozen_does_not_replace_a_later_generation(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is frozen after it has switched readers, just before it registers its generation."""
    system.execute(*ROWS)
    system.run("backfill", system.orders)
    daemon = system.start(system.orders)
    config = load_config(environ=system.environment)
    [model] = loader.load_declared(config, [system.orders])
    registry, reached, goes_on = open_registry(config), threading.Event(), threading.Event()
    adopt = registry.adopt

    def frozen(registration: Registration) -> None:
        reached.set()
        assert goes_on.wait(120)
        adopt(registration)

    monkeypatch.setattr(registry, "adopt", frozen)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(run_resync, config, model, registry, Metrics(CollectorRegistry()), 2, lambda _: None)
        try:
            until(lambda: reached.is_set() or run.done())
            assert "000003" not in system.run("resync", "--yes", system.orders)
        finally:
            goes_on.set()
        with pytest.raises(Fatal, match="this resync is obsolete"):
            run.result()
    assert system.until_status(system.orders, generation=3)["epoch"] == 3
    system.execute("UPDATE {schema}.orders SET status = 'later'")
    system.until_in_sync(system.orders)
    assert not daemon.logged("read model failed")
