"""The daemon as a process: start, reports, shared work and stop, and backfills alongside it."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

from syncer.telemetry.spec import STATES
from syncer.telemetry.table import TABLE
from tests.harness.system import System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
ORDERS = "INSERT INTO {{schema}}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series({}, {}) n"


@contextmanager
def backfill(system: System, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Runs `syncer backfill` of the orders in the background, in ranges of 100. The caller must read its output."""
    system.environment["SYNCER_BACKFILL__RANGE_DOCUMENTS"] = "100"
    with subprocess.Popen(
        [sys.executable, "-m", "syncer", "backfill", system.orders, *options],
        env=system.environment,
        cwd=system.folder,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_daemon_reports_metrics_status_and_health(system: System) -> None:
    assert (system.status_of(system.orders)["state"], system.status_of(system.orders)["backfill"]) == ("new", "never")
    daemon = system.start()
    system.execute(CUSTOMERS, ORDERS.format(1, 50))
    system.until_in_sync()
    system.execute("UPDATE {schema}.customers SET name = 'Barbara' WHERE id = 1", "DELETE FROM {schema}.orders")
    system.until_in_sync()
    until(lambda: daemon.metric("syncer_lag_records") == 0 and daemon.metric("syncer_lag_seconds") == 0)
    text = daemon.get("/metrics")[1]
    for spec in TABLE:
        assert f"# TYPE {spec.name.removesuffix('_total')}" in text, spec.name
    model = system.orders
    assert daemon.metric("syncer_events_total", model=model, op="c") == 52
    assert daemon.metric("syncer_documents_total", model=model, outcome="written") >= 50
    assert daemon.metric("syncer_documents_total", model=model, outcome="deleted") >= 50
    assert {s: daemon.metric("syncer_model_state", model=model, state=s) for s in STATES}["running"] == 1
    assert daemon.metric("syncer_errors_total") == 0
    until(lambda: daemon.metric("syncer_slot_retained_bytes") > 0)
    assert daemon.status(model) == {
        "state": "running",
        "lag_seconds": 0,
        "lag_records": 0,
        "work_records": 0,
        "reason": "",
        "last_error": "",
        "hint": "",
        "staleness_seconds": None,
        "watermark": None,
        "searchable": None,
        "watermark_reason": "the first backfill has not finished",
    }
    system.until_status(model, state="running", members=1, lag_records=0, lag_seconds=0)
    assert daemon.get("/livez") == (200, "ok\n") and daemon.get("/readyz") == (200, "ok\n")
    assert daemon.get("/nothing")[0] == 404 and daemon.get("/status?model=nobody")[0] == 404
    assert daemon.stop() < 5
    system.until_status(model, state="stopped", members=0, lag_seconds=None, reasons=[], processes=[])
    for line in daemon.log.read_text().splitlines():
        assert {"timestamp", "level", "message"} <= json.loads(line).keys()
    assert [one["unfinished"] for one in daemon.logged("daemon stopped")] == [[]]


def test_status_reports_why_a_daemon_waits(system: System) -> None:
    """`syncer status` shows the stored report. The report is cleared when the wait ends and when the daemon stops."""
    model, settings = system.orders, f"{system.stack.elasticsearch}/{system.orders}-000001/_settings"
    daemon = system.start(model)
    system.execute(CUSTOMERS, ORDERS.format(1, 5))
    system.until_in_sync(model)
    urllib3.request("PUT", settings, json={"index.blocks.write": True})
    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    until(lambda: system.status_of(model)["state"] == "waiting", lambda: system.status_of(model))
    status = system.status_of(model)
    assert "cluster_block_exception" in status["reason"] and status["lag_seconds"] > 0 and not status["last_error"]
    assert f"{model}: " in (output := system.run("status", model, expect=1)) and "cluster_block_exception" in output
    urllib3.request("PUT", settings, json={"index.blocks.write": None})
    system.until_in_sync(model)
    system.until_status(model, state="running", reason="")
    urllib3.request("PUT", settings, json={"index.blocks.write": True})
    system.execute("UPDATE {schema}.orders SET status = 'sent'")
    until(lambda: system.status_of(model)["state"] == "waiting", lambda: system.status_of(model))
    daemon.stop()
    system.until_status(model, state="stopped")
    urllib3.request("PUT", settings, json={"index.blocks.write": None})


def test_a_waiting_fan_out_counts_as_lag(system: System) -> None:
    """Once, the lag was 0.0 while thousands of documents were old, because the work lane did not count."""
    model, settings = system.orders, f"{system.stack.elasticsearch}/{system.orders}-000001/_settings"
    # Every order goes through the work topic, so the changes lane has nothing left to write.
    system.environment |= {"SYNCER_PIPELINE__FAN_OUT": "500", "SYNCER_PIPELINE__CHUNK_DOCUMENTS": "100"}
    system.execute("INSERT INTO {schema}.customers VALUES (1, 'Ada')")
    system.execute("INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 FROM generate_series(1, 1000) n")
    system.run("backfill", model)
    daemon = system.start(model)
    system.until_status(model, lag_records=0, lag_seconds=0)
    until(lambda: daemon.metric("syncer_lag_seconds") == 0)
    urllib3.request("PUT", settings, json={"index.blocks.write": True})
    system.execute("UPDATE {schema}.customers SET name = 'Augusta' WHERE id = 1")
    until(lambda: daemon.metric("syncer_lag_seconds") > 3, lambda: daemon.status(model))
    until(lambda: daemon.metric("syncer_lag_records", lane="changes") == 0)
    until(lambda: daemon.metric("syncer_lag_seconds") > 5, lambda: daemon.status(model))
    status = system.status_of(model)
    assert status["lag_records"] == 0 and status["lag_seconds"] > 3
    assert [(work["kind"], work["reason"]) for work in status["work"]] == [("keys", "fan-out")]
    assert sum(work["items"] for work in status["work"]) == status["work_records"] > 5
    assert "batches of documents (fan-out) waiting" in system.run("status", model, expect=1)
    urllib3.request("PUT", settings, json={"index.blocks.write": None})
    system.until_in_sync(model)
    until(lambda: daemon.metric("syncer_lag_seconds") == 0)
    until(lambda: system.status_of(model)["lag_seconds"] == 0)
    until(lambda: system.is_healthy(model), lambda: system.status_of(model))


def test_status_of_two_daemons_when_one_fails_and_the_other_is_killed(system: System) -> None:
    """Once, every read model was `failed` for minutes, because a second daemon had a wrong password."""
    model = system.orders
    system.execute(CUSTOMERS, ORDERS.format(1, 5))
    system.run("backfill", model)
    first = system.start(model)
    until(lambda: system.status_of(model)["state"] == "running")
    system.environment["SYNCER_POSTGRES__PASSWORD"] = "wr0ng"
    second = system.start(model, ready=False)
    del system.environment["SYNCER_POSTGRES__PASSWORD"]
    second.until_state(model, "failed")
    until(lambda: len(system.status_of(model)["reasons"]) == 1, lambda: system.status_of(model))
    status = system.status_of(model)
    assert (status["state"], status["last_error"], status["healthy"]) == ("running", "", False)
    assert f"pid {second.process.pid} has failed" in status["reason"]
    assert "password authentication failed" in status["reason"]
    assert f"pid {second.process.pid} has failed" in system.run("status", model, expect=1)
    second.stop(expect=3)
    until(lambda: system.is_healthy(model), lambda: system.status_of(model))

    first.kill()
    until(lambda: system.status_of(model)["state"] == "stopped", lambda: system.status_of(model))
    status = system.status_of(model)
    assert f"pid {first.process.pid} was killed" in status["reason"] and status["lag_seconds"] is None
    assert f"pid {first.process.pid} was killed" in system.run("status", model, expect=1)


def test_a_port_in_use_is_reported_at_once(system: System) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        system.environment["SYNCER_HTTP__PORT"] = str(port)
        command = [sys.executable, "-m", "syncer", "run"]
        result = subprocess.run(command, env=system.environment, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    for word in ("cannot listen", f"http.port {port}", "choose another http.port"):
        assert word in result.stderr


def test_a_daemon_that_anybody_could_read_does_not_start(system: System) -> None:
    system.environment["SYNCER_HTTP__HOST"] = "0.0.0.0"
    command = [sys.executable, "-m", "syncer"]
    options: Any = {"env": system.environment, "capture_output": True, "text": True, "check": False}
    result = subprocess.run([*command, "run"], **options)
    assert result.returncode == 3
    checked = subprocess.run([*command, "check"], **options)
    assert checked.returncode == 1 and "HTTP: ok" not in checked.stdout
    for output in (result.stderr, checked.stdout):
        assert "http.host 0.0.0.0" in output and "http.read_token_file" in output
    system.environment["SYNCER_HTTP__READ_TOKEN"] = "0123456789abcdef"
    daemon = system.start()
    until(lambda: daemon.get("/readyz") == (200, "ok\n"))
    assert daemon.get("/livez") == (200, "ok\n") and daemon.get("/status")[0] == 401
    assert "0123456789abcdef" not in daemon.log.read_text()


def test_a_stop_under_load_loses_nothing_and_repeats_little(system: System) -> None:
    system.environment |= {"SYNCER_PIPELINE__MAX_RECORDS": "200", "SYNCER_PIPELINE__FAN_OUT": "500"}
    system.execute(CUSTOMERS)
    daemon = system.start()
    # Wait until these are committed. Otherwise the customers would fan out to thousands of orders later.
    until(lambda: daemon.metric("syncer_events_total", model=system.orders) == 2)
    until(lambda: daemon.metric("syncer_lag_records", model=system.orders) == 0)
    system.execute(ORDERS.format(1, 9000))
    until(lambda: len(system.documents(system.orders)) > 200)
    assert daemon.stop() < 5
    committed = sum(
        system.committed(
            f"{system.prefix}.{system.orders}.1", system.topic("orders"), system.topic("customers")
        ).values()
    )
    written = len(system.documents(system.orders))
    assert written - 200 <= committed <= written + 2  # offsets count events, two of them of customers
    daemon = system.start()
    system.until_in_sync()
    until(lambda: daemon.metric("syncer_lag_records") == 0)
    seen = sum(daemon.metric("syncer_events_total", model=system.orders, op=op) for op in "cud")
    assert seen == 9002 - committed
    # The 4,500 orders of one customer are more than one batch, so they go through the work topic.
    system.execute("UPDATE {schema}.customers SET name = 'Barbara' WHERE id = 1")
    system.until_in_sync(system.orders)
    assert sum(system.kafka_admin().ends([f"{system.prefix}.{system.orders}.1.work"]).values()) > 1


def test_daemons_share_the_work_and_take_over_from_a_killed_daemon(system: System) -> None:
    system.execute(CUSTOMERS)
    first, second = system.start(ready=False), system.start(ready=False)  # both start the read models concurrently
    first.until_ready()
    second.until_ready()
    assert not first.logged("read model failed") and not second.logged("read model failed")
    until(lambda: system.status_of(system.orders)["members"] == 2)
    numbers = itertools.count(3)

    def both_see_events() -> bool:
        n = next(numbers)  # each daemon has some of the partitions, perhaps of one table only
        system.execute(f"INSERT INTO {{schema}}.customers VALUES ({n}, 'C')", ORDERS.format(10_000 + n, 10_000 + n))
        return all(daemon.metric("syncer_events_total", model=system.orders) > 0 for daemon in (first, second))

    until(both_see_events)
    system.execute(ORDERS.format(1, 3000))
    first.kill()
    system.execute("DELETE FROM {schema}.orders WHERE id % 3 = 0", "UPDATE {schema}.orders SET status = 'paid'")
    system.until_in_sync()
    until(lambda: second.metric("syncer_lag_records") == 0)
    second.stop()


def test_the_overview_has_the_progress_of_a_backfill_and_the_last_verification(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS.format(1, 3000))
    daemon = system.start()

    def overview() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(daemon.get("/overview")[1])["models"][system.orders]
        return found

    def under_way() -> bool:
        found = overview().get("backfill", {})
        return found.get("state") == "unfinished" and 0 < found["percent"] < 100 and found["seconds_left"] is not None

    until(lambda: overview().get("backfill") == {"state": "never"}, overview)
    with backfill(system, "--rate", "200") as process:
        until(under_way, overview)
        process.communicate()
    until(lambda: overview()["backfill"]["state"] == "done", overview)
    verify = f"syncer verify {system.orders}"
    until(lambda: [one["command"] for one in overview()["next_steps"]] == [verify], overview)
    system.execute("UPDATE {schema}.orders SET address = 'nonsense' WHERE id = 7")
    until(lambda: overview()["dead_letters"] == 1, overview)
    system.run("verify", system.orders, "--patience", "0", expect=1)
    until(lambda: (overview()["verification"] or {}).get("state") == "different", overview)
    assert "1 document differed" in system.run("status", system.orders, expect=1)
    assert system.status_of(system.orders)["verified"]["documents"] == 3000
    system.execute("UPDATE {schema}.orders SET address = NULL WHERE id = 7")
    until(lambda: overview()["dead_letters"] == 0, overview)
    system.run("verify", system.orders)
    until(lambda: overview()["next_steps"] == [], overview)
    assert "3,000 documents equal" in system.run("status", system.orders)
    history = json.loads(daemon.get("/overview")[1])["history"]
    assert max(history["models"][system.orders]["records"][1:]) > 0 and len(history["at"]) > 5
    top = system.run("top", "--url", daemon.url)
    assert f"pid {daemon.process.pid}" in top and re.search(rf"(?m)^{system.orders} +running +\d\.\d s", top)


def test_a_killed_backfill_resumes_where_it_stopped(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS.format(1, 3000))
    with backfill(system, "--rate", "1000"):
        until(lambda: len(system.documents(system.orders)) > 700)
    status = system.until_status(system.orders, backfill="unfinished", state="stopped")
    assert 0 < status["backfill_percent"] < 100
    written = len(system.documents(system.orders))
    assert written < 3000
    with backfill(system) as second:
        output = second.communicate()[0]
    assert second.returncode == 0 and "continuing an earlier run" in output and "done, 3,000" in output
    assert system.documents(system.orders) == system.expected(system.orders)
    assert system.status_of(system.orders)["backfill"] not in ("never", "unfinished")
    assert len(system.state_store().load()) > 0


def test_a_backfill_alongside_the_daemon_keeps_its_rate_while_rows_change(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS.format(1, 3000))
    daemon = system.start()
    stop = threading.Event()

    def write() -> None:
        with system.database.connect() as session:
            for n in itertools.cycle(range(1, 3001, 7)):
                if stop.wait(0.002):
                    return
                table = f"{system.schema}.orders"
                session.execute(f"UPDATE {table} SET amount = amount + 1 WHERE id = {n}".encode())
                if n % 5 == 0:
                    session.execute(f"DELETE FROM {table} WHERE id = {n + 1}".encode())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        began = time.monotonic()
        with backfill(system, "--rate", "600", "--workers", "2") as process:
            output = process.communicate()[0]
        took = time.monotonic() - began
    finally:
        stop.set()
        writer.join()
    assert process.returncode == 0, output
    # 30 ranges of 100 at 600 per second take 5 s. The first range of each lane starts at once.
    assert took > 0.8 * (5 - 3 * 100 / 600), output
    system.until_in_sync(system.orders)
    until(lambda: daemon.metric("syncer_lag_records") == 0)
    assert daemon.metric("syncer_errors_total") == 0


def test_an_interrupted_backfill_ends_cleanly(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS.format(1, 4000))
    with backfill(system, "--rate", "150") as process:
        until(lambda: len(system.documents(system.orders)) > 100)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=20)[0]
    assert process.returncode == 130 and "run the same command again to continue" in output
    assert "Traceback" not in output
