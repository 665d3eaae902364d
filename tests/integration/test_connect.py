"""The client of Kafka Connect's REST API: comparing, validating and applying connectors, and reading failures."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from devstack import Stack
from syncer.checks import POSTGRES_CONNECTOR, loses_only_inserts
from syncer.connect.client import Connect
from syncer.errors import Fatal, Retry
from tests.harness import Database, Names
from tests.harness.connector import definition


@pytest.fixture
def connect(stack: Stack) -> Iterator[Connect]:
    client = Connect(stack.connect)
    yield client
    client.close()


def test_applying_shows_the_difference_and_skips_unchanged_connectors(
    database: Database, names: Names, connect: Connect
) -> None:
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE PUBLICATION pub FOR TABLE orders")
    wanted = definition(database, names)
    assert loses_only_inserts(connect.plugin_version(POSTGRES_CONNECTOR)) is not None
    assert connect.plugin_version("no.such.Connector") == ""
    assert connect.config(wanted.name) is None and connect.status(wanted.name) is None
    created = connect.apply(wanted)
    assert created.action == "create"
    assert "+ database.password: ***" in str(created) and "'database.password': '***'" in repr(wanted)
    assert connect.wait_running(wanted.name, 60).running
    assert wanted.name in connect.names()
    assert connect.apply(wanted).action == "unchanged"

    changed = replace(wanted, config={**wanted.config, "poll.interval.ms": "30", "database.user": "nobody"})
    assert str(connect.plan(changed)).splitlines()[1:] == [
        f"  ~ database.user: {database.user} → nobody",
        "  ~ poll.interval.ms: 20 → 30",
    ]
    del (slower := dict(wanted.config))["heartbeat.interval.ms"]
    assert "  - heartbeat.interval.ms: 10000" in str(connect.apply(replace(wanted, config=slower)))
    assert connect.delete(wanted.name)
    assert not connect.delete(wanted.name)


def test_validation_errors_of_kafka_connect_become_one_error_without_secrets(
    database: Database, names: Names, connect: Connect
) -> None:
    password = "very secret 123"
    wrong = definition(database, names, database__password=password, snapshot__mode="sometimes", slot__name="No Good")
    with pytest.raises(Fatal) as caught:
        connect.apply(wrong)
    text = str(caught.value)
    assert "snapshot.mode" in text and "slot.name" in text
    assert password not in text
    assert connect.config(wrong.name) is None
    with pytest.raises(Fatal, match="password authentication failed"):
        connect.apply(definition(database, names, database__password=password))
    with pytest.raises(Fatal, match=r"no\.such\.Connector"):
        connect.apply(definition(database, names, connector__class="no.such.Connector"))


def test_a_failed_connector_reports_the_reason(database: Database, names: Names, connect: Connect) -> None:
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    wanted = definition(database, names)  # the publication does not exist
    connect.apply(wanted)
    with pytest.raises(Fatal, match="Publication autocreation is disabled"):
        connect.wait_running(wanted.name, 60, steady=20)
    database.execute("CREATE PUBLICATION pub FOR TABLE orders")
    assert connect.apply(wanted).action == "restart"
    assert connect.wait_running(wanted.name, 60).running


def test_an_unreachable_kafka_connect_can_be_retried() -> None:
    client = Connect("http://127.0.0.1:1", timeout=2)
    with pytest.raises(Retry, match="Kafka Connect is unreachable"):
        client.names()
    client.close()


def test_an_answer_from_another_kind_of_server_is_a_distinct_error(stack: Stack) -> None:
    client = Connect(stack.elasticsearch)
    with pytest.raises(Fatal):
        client.names()
    client.close()
