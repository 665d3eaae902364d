"""Pushes changes to clients of real daemons, over server-sent events and WebSocket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness.daemon import Daemon
from tests.harness.event_client import client
from tests.harness.system import EXPECTED_SUMMARIES, SUMMARIES, System
from tests.harness.waiting import until

DOCUMENTS = SUMMARIES.replace("{summaries}", "{prefix}-documents").replace(
    '{{redis: {{key: "{prefix}:summary:{{id}}"}}}}', '{{kafka: {{topic: "{prefix}-documents"}}}}'
)
ROWS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 20) n",
)

ALL = {"from": "beginning", "documents": "true"}


@pytest.fixture
def documents(system: System) -> str:
    """Returns the name of a read model with a Kafka sink."""
    system.declare("documents", DOCUMENTS)
    system.execute(*ROWS)
    return f"{system.prefix}-documents"


def expected(system: System) -> dict[str, Any]:
    return dict(system.database.query(EXPECTED_SUMMARIES.format(schema=system.schema)))


def test_an_insert_an_update_and_a_delete_arrive(system: System, documents: str) -> None:
    daemon = system.start(documents)
    system.run("backfill", documents)
    with client(daemon.url, documents, **ALL) as one:
        assert one.documents == expected(system)
        system.execute(
            "INSERT INTO {schema}.customers VALUES (4, 'Barbara')",
            "UPDATE {schema}.customers SET name = 'Augusta' WHERE id = 1",
            "DELETE FROM {schema}.customers WHERE id = 3",
        )
        until(lambda: one.documents == expected(system), lambda: str(one.events))
        assert {"key": "3", "op": "delete"}.items() <= one.seen("change")[-1].items() or "3" not in one.documents


def test_clients_of_two_daemons_see_every_change_and_resume_at_either(system: System, documents: str) -> None:
    first, second = system.start(documents), system.start(documents)
    system.run("backfill", documents)
    with client(first.url, documents, **ALL) as one, client(second.url, documents, **ALL) as other:
        system.execute("UPDATE {schema}.customers SET name = 'Augusta' WHERE id = 1")
        system.execute("INSERT INTO {schema}.customers VALUES (4, 'Barbara')")
        for each in (one, other):
            until(lambda each=each: each.documents == expected(system), lambda each=each: str(each.events))  # type: ignore[misc]
    # What happens while the client is disconnected is not lost: the daemon that it used stops, too.
    first.stop()
    system.execute(
        "DELETE FROM {schema}.customers WHERE id = 3",
        "INSERT INTO {schema}.customers SELECT n, 'new' FROM generate_series(10, 200) n",
    )
    with client(second.url, documents, one.id, documents="true") as again:
        again.documents = one.documents | again.documents
        until(lambda: again.documents.keys() | {"3"} == expected(system).keys() | {"3"}, lambda: str(again.events))
        assert "3" in {data["key"] for data in again.seen("change") if data["op"] == "delete"}


def test_a_process_of_its_own_pushes_changes_and_ends_streams_when_it_stops(system: System, documents: str) -> None:
    daemon = system.start(documents)
    system.run("backfill", documents)
    served = Daemon((documents,), system.environment, system.folder / "serve.log", command="serve")
    try:
        with client(served.url, documents, where="name:Augusta", **ALL) as one:
            assert one.documents == {}
            system.execute("UPDATE {schema}.customers SET name = 'Augusta' WHERE id = 1")
            until(lambda: one.documents == {"1": expected(system)["1"]}, lambda: str(one.events))
            system.execute("UPDATE {schema}.customers SET name = 'Ada' WHERE id = 1")
            until(lambda: one.documents == {}, lambda: str(one.events))
            assert one.seen("change")[-1]["op"] == "left"
            assert served.status(documents)["state"] == "served" and served.ready()
            for path in ("/wait?model=x", "/models/x/refresh"):
                assert served.get(path)[0] == 404
            assert served.stop() < 5
            one.thread.join(10)
            assert not one.thread.is_alive() and not one.seen("must-refetch")
        with client(daemon.url, documents, one.id) as again:
            assert not again.seen("change"), "the id of one process is valid in another"
    finally:
        served.kill()


def test_a_model_without_a_kafka_sink_says_how_to_add_one(system: System) -> None:
    daemon = system.start(system.orders, ready=False)
    status, body = daemon.get(f"/models/{system.orders}/changes")
    assert status == 409 and "kafka: {topic:" in body and f"syncer resync {system.orders}" in body
    assert daemon.get("/models/nothing/changes")[0] == 404
    assert "none of them has a Kafka sink" in system.run("serve", system.orders, expect=3)
