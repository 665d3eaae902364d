"""Detects and repairs documents that were edited by hand, with a daemon and without one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
import urllib3

from syncer.clock import split_version
from tests.harness.system import SUMMARIES, System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger')"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"


@pytest.fixture
def system(system: System) -> System:
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill")
    return system


def document(system: System, id: int, method: str, query: str = "", **body: Any) -> dict[str, Any]:
    """Sends a request about a document to Elasticsearch, as an operator would."""
    url = f"{system.stack.elasticsearch}/{system.orders}/_doc/{id}{query}"
    answer: dict[str, Any] = urllib3.request(method, url, json=body or None).json()
    return answer


def edit_by_hand(system: System) -> None:
    """Edits, deletes and adds a document in each sink. Some are edited several times."""
    for n in range(7):
        document(system, 1, "PUT", status=f"edited {n}")
    document(system, 2, "DELETE")
    document(system, 99, "PUT", status="nobody's")
    version = document(system, 3, "GET")["_version"]
    document(system, 3, "PUT", f"?version_type=external&version={version + 200}", status="edited 200 times")
    document(system, 3, "DELETE")
    with redis.Redis.from_url(system.stack.redis) as client:
        client.set(f"{system.prefix}:summary:1", '{"name": "Eve", "orders": []}')
        client.delete(f"{system.prefix}:summary:2")


def repair_reports(
    system: System, *models: str, expect: int = 0, option: str = "--repair"
) -> dict[str, dict[str, Any]]:
    """Returns the reports of `syncer verify`, by kind of sink."""
    output = system.run("verify", option, "--patience", "2", "--json", *models, expect=expect)
    return {report["sink"].partition(":")[0]: report for report in json.loads(output[output.index("[\n") :])}


def test_verify_repairs_manual_edits_without_a_daemon(system: System) -> None:
    edit_by_hand(system)
    system.execute("DELETE FROM {schema}.orders WHERE id = 5", "DELETE FROM {schema}.customers WHERE id = 3")
    output = system.run("verify", "--patience", "0", expect=1)
    assert "missing: 2, 3" in output and "differing: 1" in output and "orphaned: 5, 99" in output
    assert "orphaned: 3" in output and "syncer verify --repair" in output
    reports = repair_reports(system)
    assert {sink: report["repaired"] for sink, report in reports.items()} == {"elasticsearch": 5, "redis": 3}
    assert all(report["equal"] for report in reports.values())
    for model in (system.orders, system.summaries):
        assert system.documents(model) == system.expected(model)
    assert repair_reports(system)["elasticsearch"]["repaired"] == 0


def test_verify_repairs_manual_edits_alongside_a_daemon(system: System) -> None:
    daemon = system.start()
    # Events from before the daemon started must be done: a write of an edited document stops the read model.
    system.execute("UPDATE {schema}.orders SET status = 'sent'", "UPDATE {schema}.customers SET name = name || '!'")
    system.until_in_sync()
    for model in (system.orders, system.summaries):
        system.until_status(model, state="running", lag_records=0)
    edit_by_hand(system)
    assert all(report["equal"] for report in repair_reports(system).values())
    system.until_in_sync()
    system.execute("UPDATE {schema}.orders SET status = 'paid'")
    system.until_in_sync()
    assert not daemon.logged("read model failed")
    until(lambda: daemon.metric("syncer_lag_records") == 0)


def test_a_document_that_is_too_far_ahead_does_not_prevent_the_repair_of_others(system: System) -> None:
    version = document(system, 1, "GET")["_version"]
    document(system, 1, "PUT", f"?version_type=external&version={version + 5000}", status="edited 5000 times")
    document(system, 2, "PUT", status="edited")
    output = system.run("verify", "--repair", "--patience", "2", system.orders, expect=3)
    assert "1 of 2 documents has a higher version than the clock of PostgreSQL can reach" in output
    assert "for document 1, the clock is" in output and f"syncer resync {system.orders}" in output
    [found] = [id for id in ("1", "2") if system.documents(system.orders)[id] != system.expected(system.orders)[id]]
    assert found == "1"


def test_differences_that_cannot_be_repaired_are_reported(system: System) -> None:
    """An unrenderable row and a rejected document get dead letters.

    A document whose ID cannot belong to a row is deleted. A document with a much higher version requires a resync.
    """
    system.execute(
        "UPDATE {schema}.orders SET address = 'no address' WHERE id = 4",
        "UPDATE {schema}.orders SET parts = 0 WHERE id = 5",
    )
    url = f"{system.stack.elasticsearch}/{system.orders}/_doc/nobody"
    urllib3.request("PUT", url, json={"status": "no number"})
    report = repair_reports(system, system.orders, expect=1)["elasticsearch"]
    assert (report["differing"], report["failing"], report["orphaned"]) == (["4"], ["5"], [])
    assert (report["missing"], report["repaired"]) == ([], 1)
    assert "no address" in system.run("dlq", "show", system.orders, "4")
    assert "division by zero" in system.run("dlq", "show", system.orders, "5")
    assert "cannot be rendered: 5" in system.run("verify", system.orders, "--patience", "0", expect=1)
    version = document(system, 1, "GET")["_version"]
    assert split_version(version)[0] == 1
    document(system, 1, "PUT", f"?version_type=external&version={version + 10**9}", status="from the future")
    output = system.run("verify", system.orders, "--repair", "--patience", "0", expect=3)
    assert "higher version than" in output and f"syncer resync {system.orders}" in output


def test_an_expired_document_is_not_missing(system: System) -> None:
    """Once, `verify` reported it as missing. It is not rendered again either."""
    key = "{prefix}:brief:{{id}}"
    system.declare(
        "brief",
        SUMMARIES.replace("{summaries}", "{prefix}-brief").replace(
            '{{redis: {{key: "{prefix}:summary:{{id}}"}}}}', f'{{{{redis: {{{{key: "{key}", expire: 1d}}}}}}}}'
        ),
    )
    model = f"{system.prefix}-brief"
    system.run("backfill", model)
    with redis.Redis.from_url(system.stack.redis) as client:
        for id in (1, 2):
            client.delete(f"{system.prefix}:brief:{id}")
        assert client.expire(f"version:{{{system.prefix}:brief:1}}", 600)  # as if a day and 50 minutes had passed
        output = system.run("verify", model, "--patience", "0", expect=1)
        assert "missing: 2\n" in output
        report = repair_reports(system, model, option="--json", expect=1)["redis"]
        assert (report["expired"], report["missing"]) == (1, ["2"])
        assert repair_reports(system, model)["redis"]["repaired"] == 1
        assert client.exists(f"{system.prefix}:brief:1", f"{system.prefix}:brief:2") == 1
        report = repair_reports(system, model, option="--json")["redis"]
        assert (report["expired"], report["equal"]) == (1, True)
