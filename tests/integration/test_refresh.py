"""Refreshes documents on request, with daemons, real servers and faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import urllib3

from syncer.clock import split_version
from syncer.config.schema import load as load_config
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.records import StateSlot
from tests.harness.daemon import Daemon
from tests.harness.proxy import proxy
from tests.harness.system import System
from tests.harness.waiting import until
from tests.integration.test_freshness import asks_for_tokens

ROWS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 20) n",
)


def order(system: System, id: object) -> dict[str, Any] | None:
    """Returns an order's document, read by its id through the name that applications use."""
    response = urllib3.request("GET", f"{system.stack.elasticsearch}/{system.orders}/_doc/{id}", retries=5)
    source: dict[str, Any] | None = response.json().get("_source")
    return source


def summary(system: System, id: object) -> dict[str, Any] | None:
    with redis.Redis.from_url(system.redis) as client:
        value: Any = client.get(f"{system.prefix}:summary:{id}")
    return json.loads(value) if value else None


def write(system: System, *statements: str) -> str:
    """Runs statements in one transaction. Returns its token."""
    with system.database.connect() as session, session.transaction():
        for statement in statements:
            session.execute(statement.format(schema=system.schema).encode())
        row = session.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    return f"x:{row[0]}"


@pytest.fixture
def filled(system: System) -> System:
    system.execute(*ROWS)
    system.run("backfill")
    return system


@pytest.fixture
def without_connect(filled: System) -> Iterator[System]:
    """Yields a system whose changes do not reach Kafka."""
    filled.stack.halt("connect")
    try:
        yield filled
    finally:
        filled.stack.launch("connect")


def refreshed(daemon: Daemon, model: str, **body: Any) -> dict[str, Any]:
    status, answer = daemon.refresh(model, **body)
    assert status == 200, answer
    return answer


def test_refreshed_documents_show_the_commit_at_once_without_kafka_connect(without_connect: System) -> None:
    system = without_connect
    daemon = system.start(ready=False)
    for model in (system.orders, system.summaries):
        until(lambda m=model: daemon.status(m)["state"] in ("running", "waiting"))  # type: ignore[misc]
        until(lambda m=model: daemon.refresh(m, keys=[1])[0] == 200)  # type: ignore[misc]
    # by transaction, by WAL position, and without a token
    token = write(system, "UPDATE {schema}.orders SET status = 'paid' WHERE id = 1")
    answer = refreshed(daemon, system.orders, keys=["1"], token=token)
    assert answer["model"] == system.orders and answer["refreshed"] == 1
    assert split_version(answer["version"])[0] == 1 and answer["snapshot_at"].endswith("Z")
    assert (order(system, 1) or {})["status"] == "paid"
    write(system, "UPDATE {schema}.orders SET status = 'sent' WHERE id IN (1, 2)")
    [(lsn,)] = system.database.query("SELECT pg_current_wal_insert_lsn()::text")
    assert refreshed(daemon, system.orders, keys=[1, "02"], token=f"l:{lsn}")["refreshed"] == 2
    assert (order(system, 1) or {})["status"] == (order(system, 2) or {})["status"] == "sent"
    write(system, "DELETE FROM {schema}.orders WHERE id = 3")
    refreshed(daemon, system.orders, keys=["003"])
    assert order(system, 3) is None
    # a moved and a deleted child, by link values before and after
    token = write(system, "UPDATE {schema}.orders SET customer_id = 3 WHERE id = 4")
    rows: list[dict[str, Any]] = [{"customer_id": 1}, {"customer_id": 3}]
    assert refreshed(daemon, system.summaries, table="orders", rows=rows, token=token)["refreshed"] == 2
    expected = system.expected(system.summaries)
    assert summary(system, 1) == expected["1"] and summary(system, 3) == expected["3"]
    token = write(system, "DELETE FROM {schema}.orders WHERE id = 4")
    status, answer = daemon.refresh(system.summaries, table="orders", rows=[{"id": 4}], token=token)
    assert status == 409 and "leads to no document" in answer["error"]
    whole = {"id": 4, "customer_id": 3, "parts": 1.5, "address": None}  # other columns are ignored
    refreshed(daemon, system.summaries, table=f"{system.schema}.orders", rows=[whole], token=token)
    assert summary(system, 3) == {"name": "Edsger", "orders": []}
    # a child that exists may be named by its key alone
    token = write(system, "UPDATE {schema}.orders SET status = 'lost' WHERE id = 5")
    assert refreshed(daemon, system.summaries, table="orders", rows=[{"id": 5}], token=token)["refreshed"] == 1
    assert summary(system, 2) == system.expected(system.summaries)["2"]
    # a table whose rows lead to several documents, through a look-up
    token = write(system, "UPDATE {schema}.customers SET name = 'Countess' WHERE id = 1")
    number = len([1 for row in system.expected(system.orders).values() if row["customer"] == "Countess"])
    assert refreshed(daemon, system.orders, table="customers", rows=[{"id": 1}], token=token)["refreshed"] == number
    assert (order(system, 2) or {})["customer"] == "Countess"
    # the command, in a process of its own and through the daemon
    token = write(system, "UPDATE {schema}.orders SET status = 'back' WHERE id IN (6, 7)")
    assert "1 document refreshed" in system.run("refresh", system.orders, "6", "--token", token)
    assert (order(system, 6) or {})["status"] == "back" != (order(system, 7) or {})["status"]
    output = system.run("refresh", system.orders, "7", "--token", token, "--url", daemon.url, "--json")
    assert json.loads(output)["refreshed"] == 1
    assert (order(system, 7) or {})["status"] == "back"
    assert daemon.metric("syncer_refreshed_documents_total", model=system.orders) > 8


def test_bad_requests_are_refused_with_their_reason(filled: System) -> None:
    system = filled
    system.environment["SYNCER_REFRESH__MAX_DOCUMENTS"] = "15"
    system.environment["SYNCER_REFRESH__CLIENT_RATE"] = "0"
    daemon = system.start()
    orders, summaries = system.orders, system.summaries
    [(xmax,)] = system.database.query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    with system.database.connect(autocommit=False) as session:
        [aborted] = session.execute("SELECT pg_current_xact_id()::text").fetchone() or ()
        session.rollback()
    with system.database.connect(autocommit=False) as session:
        [running] = session.execute("SELECT pg_current_xact_id()::text").fetchone() or ()
        cases: list[tuple[int, str, str, dict[str, Any]]] = [
            (404, "does not exist", "nothing", {"keys": [1]}),
            (400, "does not fit the type", orders, {"keys": ["seven"]}),
            (400, "does not fit the type", orders, {"keys": [str(1 << 70)]}),
            (400, "wrong number of values", orders, {"keys": [[1, 2]]}),
            (400, "neither text nor an integer", orders, {"keys": [1.5]}),
            (400, "neither text nor an integer", orders, {"keys": [None]}),
            (400, "cannot store", orders, {"keys": ["1\0"]}),
            (400, "at least one entry", orders, {"keys": []}),
            (400, "either `keys`, or `table` and `rows`", orders, {}),
            (400, "either `keys`, or `table` and `rows`", orders, {"rows": [{"id": 1}]}),
            (
                400,
                "either `keys`, or `table` and `rows`",
                orders,
                {"keys": [1], "table": "orders", "rows": [{"id": 1}]},
            ),
            (400, "unknown field", orders, {"keys": [1], "tokens": "now"}),
            (400, "`timeout`", orders, {"keys": [1], "timeout": -1}),
            (400, "`timeout`", orders, {"keys": [1], "timeout": 1e9}),
            (400, "no table of the read model", summaries, {"table": "parts", "rows": [{"id": 1}]}),
            (400, "lacks columns", summaries, {"table": "orders", "rows": [{"status": "new"}]}),
            (400, "does not fit the type", summaries, {"table": "orders", "rows": [{"customer_id": "x"}]}),
            (400, "does not fit the type", orders, {"table": "customers", "rows": [{"id": "x"}]}),
            (409, "leads to no document", orders, {"table": "customers", "rows": [{"id": 3}]}),
            (409, "leads to no document", summaries, {"table": "orders", "rows": [{"id": 999}]}),
            (400, "cannot be parsed", orders, {"keys": [1], "token": "x:1"}),
            (400, "has not reached", orders, {"keys": [1], "token": f"x:{xmax + 1000}"}),
            (409, "rolled back", orders, {"keys": [1], "token": f"x:{aborted}"}),
            (409, "another PostgreSQL server", orders, {"keys": [1], "token": f"x:{aborted}@5/1"}),
            (504, "has not been committed", orders, {"keys": [1], "token": f"x:{running}", "timeout": 0.2}),
            (413, "more than 15 documents", orders, {"keys": list(range(16))}),
        ]
        for status, reason, model, body in cases:
            found, answer = daemon.refresh(model, **body)
            assert (found, reason in answer["error"]) == (status, True), (body, found, answer)
            assert answer["hint"] or status == 400, answer
    system.execute("INSERT INTO {schema}.orders (id, customer_id) SELECT n, 3 FROM generate_series(100, 120) n")
    status, answer = daemon.refresh(orders, table="customers", rows=[{"id": 3}])
    assert status == 413 and "GET /wait" in answer["hint"]
    # a NULL links to no document, so nothing is stale
    answer = refreshed(daemon, summaries, table="orders", rows=[{"customer_id": None}])
    assert answer["refreshed"] == 0 and answer["version"]
    assert system.dead_letters(orders) == system.dead_letters(summaries) == []
    system.run("refresh", orders, "x", expect=3)
    system.run("refresh", orders, "1", "--token", f"x:{aborted}", expect=3)
    system.run("refresh", orders, "1", "--url", "http://127.0.0.1:9", expect=4)


def test_limits_per_client_per_document_and_per_process(filled: System) -> None:
    system = filled
    system.environment |= {"SYNCER_REFRESH__KEY_RATE": "0.5", "SYNCER_REFRESH__MAX_REQUESTS": "1"}
    daemon = system.start()
    assert daemon.refresh(system.orders, keys=[1])[0] == 200
    status, answer = daemon.refresh(system.orders, keys=[2, 1])
    assert status == 429 and "refreshed too often" in answer["error"]
    assert daemon.refresh(system.orders, keys=[2])[0] == 200
    with system.database.connect(autocommit=False) as session:
        [running] = session.execute("SELECT pg_current_xact_id()::text").fetchone() or ()
        first: list[tuple[int, Any]] = []
        body = {"keys": [3], "token": f"x:{running}", "timeout": 30}
        thread = threading.Thread(target=lambda: first.append(daemon.refresh(system.orders, **body)))
        thread.start()
        until(lambda: asks_for_tokens(system), "the first request does not wait for its transaction")
        assert daemon.refresh(system.orders, keys=[4])[0] == 503
        session.commit()
        thread.join()
    assert first[0][0] == 200


def test_a_refused_document_has_a_dead_letter(filled: System) -> None:
    system = filled
    daemon = system.start()
    system.execute("UPDATE {schema}.orders SET address = 'no address' WHERE id = 1")
    token = write(system, "UPDATE {schema}.orders SET parts = 0 WHERE id = 2")
    status, answer = daemon.refresh(system.orders, keys=[1, 2, 3], token=token)
    assert status == 422 and "2 of 3 documents were refused" in answer["error"]
    assert (
        "document 1:" in answer["error"] and "document 2:" in answer["error"] and "division by zero" in answer["error"]
    )
    letters = system.run("dlq", "list", system.orders)
    assert "document 1 " in letters and "document 2 " in letters
    system.execute("UPDATE {schema}.orders SET address = NULL, parts = 1 WHERE id < 3")
    assert daemon.refresh(system.orders, keys=[1, 2])[0] == 200
    until(lambda: "document" not in system.run("dlq", "list", system.orders))
    system.execute("UPDATE {schema}.orders SET address = 'no address' WHERE id = 1")
    system.run("refresh", system.orders, "1", expect=1)
    system.execute("UPDATE {schema}.orders SET address = NULL WHERE id = 1")
    # The command reads the open letters when it starts, so it resolves its own and those of the stream.
    until(
        lambda: system.run("refresh", system.orders, "1") and "document" not in system.run("dlq", "list", system.orders)
    )
    assert daemon.status(system.orders)["state"] == "running"


def test_an_unreachable_sink_is_a_503_and_the_next_request_succeeds(filled: System) -> None:
    system = filled
    url = system.environment["SYNCER_ELASTICSEARCH__URL"]
    with proxy(url.partition("://")[2]) as link:
        system.environment["SYNCER_ELASTICSEARCH__URL"] = f"http://{link.address}"
        daemon = system.start()
        assert daemon.refresh(system.orders, keys=[1])[0] == 200
        link.down()
        token = write(system, "UPDATE {schema}.orders SET status = 'paid' WHERE id = 1")
        status, answer = daemon.refresh(system.orders, keys=[1], token=token, timeout=2)
        assert status == 503 and "elasticsearch" in answer["error"], answer
        link.up()
        until(lambda: daemon.refresh(system.orders, keys=[1], token=token)[0] == 200)
        assert (order(system, 1) or {})["status"] == "paid"


def test_a_failed_read_model_is_a_503_with_the_command_to_run(filled: System) -> None:
    system = filled
    text = (system.folder / "models" / "orders.yaml").read_text()
    (system.folder / "models" / "orders.yaml").write_text(text.replace("status: status", "state: status"))
    daemon = system.start(ready=False)
    daemon.until_state(system.orders, "failed")
    status, answer = daemon.refresh(system.orders, keys=[1])
    assert status == 503 and "the read model is failed" in answer["error"]
    assert answer["hint"] == f"syncer resync {system.orders}"


def test_refreshes_and_the_stream_write_the_same_documents_concurrently(filled: System) -> None:
    """Two daemons, of which one is killed: the stream rebalances, and requests go on at the other."""
    system = filled
    system.environment |= {"SYNCER_REFRESH__CLIENT_RATE": "0", "SYNCER_REFRESH__KEY_RATE": "0"}
    daemons = [system.start(), system.start()]
    end, wrong, good = threading.Event(), list[str](), [0, 0]

    def write_and_read(number: int) -> None:
        """Updates an order of its own, and reads its own write from both sinks."""
        id, n = 10 + number, 0
        while not end.is_set():
            n += 1
            values = f"status = 'w{n}', customer_id = {1 + n % 3}"
            token = write(system, f"UPDATE {{schema}}.orders SET {values} WHERE id = {id}")
            rows = [{"customer_id": c} for c in (1 + (n - 1) % 3, 1 + n % 3)]
            daemon = daemons[n % len(daemons)]
            try:
                one = daemon.refresh(system.orders, keys=[id], token=token)
                two = daemon.refresh(system.summaries, table="orders", rows=rows, token=token)
            except urllib3.exceptions.HTTPError:  # the daemon was killed
                continue
            if one[0] == 200:
                good[0] += 1
                if (found := (order(system, id) or {})["status"]) != f"w{n}":
                    wrong.append(f"order {id} is {found}, written was w{n}")
            if two[0] == 200:
                good[1] += 1
                if f"w{n}" not in (summary(system, 1 + n % 3) or {})["orders"]:
                    wrong.append(f"summary of order {id} lacks w{n}")
            if one[0] not in (200, 503) or two[0] not in (200, 503):
                wrong.append(str((one, two)))

    threads = [threading.Thread(target=write_and_read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: good[0] > 60 or wrong)
    killed = daemons.pop()
    killed.kill()
    seen = good[0]
    until(lambda: good[0] > seen + 60 or wrong)
    end.set()
    for thread in threads:
        thread.join()
    assert not wrong and good[1] > 60, wrong
    system.until_in_sync()
    output = system.run("verify")
    assert output.count("equal") >= 2, output


def test_resyncs_that_other_processes_announce(filled: System) -> None:
    """A switch that was announced, a rebuild in place, and keys that the next generation has to render, too."""
    system = filled
    daemon = system.start()
    config = load_config(environ=system.environment)
    registry = open_registry(config)
    registrations = {}
    for name in (system.orders, system.summaries):
        assert daemon.refresh(name, keys=[1])[0] == 200
        [model] = loader.load_declared(config, [name])
        compiled = loader.load_checked(config, model).compiled
        names = registry.names(name, compiled.tables, 2)
        following = registry.register(compiled, names, epoch=2, generation=2, slot=StateSlot.NEXT)
        registrations[name] = registry.registered(name), following, registry.work_queue(names)
    # Redis is rebuilt in place
    status, answer = daemon.refresh(system.summaries, keys=[1])
    assert status == 503 and "in place" in answer["error"], answer
    # Elasticsearch is not: the next generation gets the keys
    active, following, work = registrations[system.orders]
    assert active is not None and sum(work.ends().values()) == 0
    assert daemon.refresh(system.orders, keys=[1, 2])[0] == 200
    assert sum(work.ends().values()) == 1
    registry.announce_swap(active, following)
    status, answer = daemon.refresh(system.orders, keys=[1])
    assert status == 503 and "switching readers" in answer["error"], answer
    assert "switching readers" in system.run("refresh", system.orders, "1", expect=4)
    registry.withdraw_swap(following)
    assert daemon.refresh(system.orders, keys=[1])[0] == 200


def test_a_resync_does_not_lose_refreshed_documents(without_connect: System) -> None:
    """No change reaches Kafka, so the next generation has the changes since its backfill from refreshes only."""
    system = without_connect
    system.environment |= {"SYNCER_REFRESH__CLIENT_RATE": "0", "SYNCER_REFRESH__KEY_RATE": "0"}
    daemon = system.start(system.orders, ready=False)
    until(lambda: daemon.refresh(system.orders, keys=[1])[0] == 200)
    confirmed, wrong, statuses, end = dict[int, int](), list[str](), list[int](), threading.Event()

    def write_and_read() -> None:
        n = 0
        while not end.is_set():
            n, id = n + 1, 1 + n % 5
            token = write(system, f"UPDATE {{schema}}.orders SET status = '{n}' WHERE id = {id}")
            status, _ = daemon.refresh(system.orders, keys=[id], token=token, timeout=20)
            statuses.append(status)
            if status == 200:
                confirmed[id] = n
            for one, least in list(confirmed.items()):
                if int((order(system, one) or {"status": -1})["status"]) < least:
                    wrong.append(f"order {one} lost {least} after {n} writes ({len(statuses)} requests)")
                    end.set()

    thread = threading.Thread(target=write_and_read)
    thread.start()
    try:
        until(lambda: len(confirmed) == 5 or wrong)
        system.run("resync", system.orders, "--yes")
        seen = len(statuses)
        until(lambda: 200 in statuses[seen:] or wrong)
    finally:
        end.set()
        thread.join()
    assert not wrong, wrong
    assert set(statuses) <= {200, 503}
    [index] = urllib3.request("GET", f"{system.stack.elasticsearch}/_alias/{system.orders}").json()
    assert index == f"{system.orders}-000002"
    assert daemon.status(system.orders)["state"] != "failed"


def test_a_refresh_of_a_read_model_that_never_ran_is_an_error(system: System) -> None:
    output = system.run("refresh", system.orders, "1", expect=3)
    assert "has never run" in output and "syncer backfill" in output


def test_a_transaction_in_progress_ends_the_command_with_the_exit_code_of_a_retry(filled: System) -> None:
    system = filled
    with system.database.connect(autocommit=False) as session:
        [running] = session.execute("SELECT pg_current_xact_id()::text").fetchone() or ()
        output = system.run("refresh", system.orders, "1", "--token", f"x:{running}", "--timeout", "0.2", expect=4)
    assert "in progress" in output
