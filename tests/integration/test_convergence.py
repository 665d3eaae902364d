"""Checks that every document equals its rows in PostgreSQL after random writes and faults.

CONVERGENCE_SEED repeats the random choices of a run, but not its timing. CONVERGENCE_SECONDS, _WRITERS and _RATE
(transactions per second) make the run longer and harder.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import urllib3

from devstack import Stack
from tests.convergence.compare import Expected, compare, describe
from tests.convergence.deployment import Deployment, deployed
from tests.convergence.documents import Difference
from tests.convergence.faults import Faults
from tests.convergence.oracle import Oracle
from tests.convergence.workload import Workload
from tests.harness import Database, Names
from tests.harness.waiting import remaining

SEED = os.environ.get("CONVERGENCE_SEED") or str(random.SystemRandom().randrange(10**9))
SECONDS = float(os.environ.get("CONVERGENCE_SECONDS", "20"))
WRITERS = int(os.environ.get("CONVERGENCE_WRITERS", "4"))
RATE = float(os.environ.get("CONVERGENCE_RATE", "40"))
SETTLES_WITHIN = 150.0
"""Maximum seconds from the last write until all documents are correct and no work is left. A busy machine is slow."""


@pytest.fixture
def deployment(stack: Stack, database: Database, names: Names, tmp_path: Path) -> Iterator[Deployment]:
    with deployed(stack, database, names, tmp_path) as created:
        yield created


@pytest.fixture
def workload(deployment: Deployment, echo: Callable[[str], None]) -> Iterator[Workload]:
    echo(f"convergence: CONVERGENCE_SEED={SEED}")
    created = Workload(deployment.database, SEED, WRITERS, RATE)
    try:
        yield created
    finally:
        created.close()


@pytest.mark.timeout(SECONDS + 2 * SETTLES_WITHIN + 240)  # includes the start of the servers
def test_every_document_converges_to_the_state_of_postgresql(
    deployment: Deployment, workload: Workload, echo: Callable[[str], None]
) -> None:
    workload.seed_rows(60)
    deployment.run("connectors", "apply", "--yes")
    faults = Faults(deployment, SEED)
    try:
        workload.start()
        faults.begin()
        faults.run_until(time.monotonic() + SECONDS * 0.4, backfills=True)
        # A backfill would hide documents that a truncate left behind. Both would hide a change that was missed.
        faults.finish_backfill(time.monotonic() + SETTLES_WITHIN)
        workload.calm()
        workload.do("truncate projects")
        for _ in range(4):
            workload.do("add many")
        faults.run_until(time.monotonic() + SECONDS * 0.4, backfills=False)
        workload.do("truncate entries")
        faults.run_until(time.monotonic() + SECONDS * 0.2, backfills=False)
    finally:
        workload.stop()
    deadline = time.monotonic() + SETTLES_WITHIN
    echo(f"convergence: {workload.summary()}; {faults.summary()}")
    faults.stop()
    expected = Oracle(deployment.database).documents()
    assert all(len(documents) > 5 for documents in expected.values()), "nothing to compare"

    seconds_left = wait_until_equal(deployment, expected, deadline)
    echo(f"convergence: settled {SETTLES_WITHIN - seconds_left:.1f} s after the last write")
    deployment.run("verify", "--patience", "5")
    for daemon in faults.daemons:
        daemon.stop()
    equal(deployment, expected)


def test_verify_reports_documents_changed_by_hand(deployment: Deployment, workload: Workload) -> None:
    workload.seed_rows(10)
    deployment.run("backfill")
    expected = Oracle(deployment.database).documents()
    equal(deployment, expected)
    deployment.run("verify", "--patience", "0")

    documents = expected["projects", "elasticsearch"]
    changed, *_, deleted = sorted(documents)
    index = f"{deployment.stack.elasticsearch}/{deployment.model('projects')}"
    urllib3.request("POST", f"{index}/_update/{changed}", json={"doc": {"budget": 0.1}})
    urllib3.request("DELETE", f"{index}/_doc/{deleted}")
    urllib3.request("PUT", f"{index}/_doc/-1", json={"id": -1})
    person, *_ = sorted(expected["people", "redis"])
    with redis.Redis.from_url(deployment.stack.redis) as client:
        client.hincrby(f"{deployment.names.prefix}:person:{person}", "leads", 1)
    reports = json.loads(deployment.run("verify", "--patience", "0", "--json", expect=(1,)))
    reported = {
        report["sink"].partition(":")[0] + kind: report[kind]
        for report in reports
        for kind in ("missing", "differing", "orphaned")
        if report[kind]
    }
    assert reported == {
        "elasticsearchmissing": [deleted],
        "elasticsearchdiffering": [changed],
        "elasticsearchorphaned": ["-1"],
        "redisdiffering": [person],
    }

    # A backfill repairs missing and differing documents. It cannot detect a ghost, which has no row.
    assert {(one.kind, one.id) for one in compare(deployment, expected)} == {
        ("missing", deleted),
        ("differing", changed),
        ("ghost", "-1"),
        ("differing", person),
    }


def wait_until_equal(deployment: Deployment, expected: Expected, deadline: float) -> float:
    """Waits until every document is as expected and no work is left. Returns the seconds left."""
    found: list[Difference] = []
    waiting: object = None
    for seconds_left in remaining(deadline):
        found = compare(deployment, expected)
        if not found:
            # Exit code 1 means that a read model waits. The cause may have ended a moment ago.
            status = deployment.status(expect=(0, 1))
            assert not [s for s in status if s["state"] == "failed"], status
            waiting = [s for s in status if s["lag_records"] or s["work_records"]]
            if not waiting:
                return seconds_left
    raise AssertionError(f"not within {SETTLES_WITHIN} s, {waiting}: CONVERGENCE_SEED={SEED}: {describe(found)}")


def equal(deployment: Deployment, expected: Expected) -> None:
    found = compare(deployment, expected)
    assert not found, f"CONVERGENCE_SEED={SEED}: {describe(found)}"
