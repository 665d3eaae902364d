"""The test stack: the settings of each server, and an event in Kafka for a change in PostgreSQL."""

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
import urllib3
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from devstack import Stack, planned_versions
from tests.harness import Database, Names


def test_postgres_uses_logical_wal_and_requires_a_password(stack: Stack, database: Database) -> None:
    settings = dict(
        database.query(
            "SELECT name, setting FROM pg_settings WHERE name IN ('wal_level', 'max_replication_slots', 'fsync')"
        )
    )
    assert settings == {"wal_level": "logical", "max_replication_slots": "64", "fsync": "on"}
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.dsn.replace(f":{database.password}@", ":wrong@"))


def test_a_standby_can_be_started(stack: Stack, standby: Stack) -> None:
    def in_recovery(url: str) -> object:
        with psycopg.connect(url) as session:
            return session.execute("SELECT pg_is_in_recovery()").fetchone()

    assert (in_recovery(stack.postgres), in_recovery(standby.postgres)) == ((False,), (True,))


def test_kafka_does_not_create_topics_automatically(stack: Stack, names: Names) -> None:
    consumer = Consumer({"bootstrap.servers": stack.kafka, "group.id": names("group")})
    try:
        consumer.list_topics(names("mentioned"), timeout=10)
    finally:
        consumer.close()
    assert names("mentioned") not in AdminClient({"bootstrap.servers": stack.kafka}).list_topics(timeout=10).topics


def test_elasticsearch_accepts_external_versions(stack: Stack, names: Names) -> None:
    def index(version: int) -> int:
        url = f"{stack.elasticsearch}/{names('things')}/_doc/1?version_type=external&version={version}"
        return urllib3.request("PUT", url, json={"version": version}).status

    assert [index(2**48 + 7), index(2**48 + 6), index(2**48 + 8)] == [201, 409, 200]


def test_a_dead_server_is_started_again(stack: Stack) -> None:
    stack.kill("redis")
    assert stack.launch_dead() == ["redis"]
    assert "redis" in stack.running()
    assert stack.launch_dead() == []


def test_redis_never_evicts(stack: Stack) -> None:
    with redis.Redis.from_url(stack.redis) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_running_versions_are_the_planned_versions(stack: Stack, database: Database) -> None:
    assert stack.versions() == planned_versions()
    ((said,),) = database.query("SHOW server_version")
    assert said.split()[0] == planned_versions()["postgres"]


@pytest.fixture
def topic(stack: Stack, database: Database, names: Names) -> str:
    """Starts a connector on the table `public.things`. Returns the topic of the table."""
    database.execute(
        "CREATE TABLE things (id int PRIMARY KEY, name text)",
        "ALTER TABLE things REPLICA IDENTITY FULL",
    )
    topic = f"{names.prefix}.public.things"
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])[topic].result(20)
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": database.host,
        "database.port": database.port,
        "database.user": database.user,
        "database.password": database.password,
        "database.dbname": database.name,
        "topic.prefix": names.prefix,
        "plugin.name": "pgoutput",
        "slot.name": f"{names.prefix}_slot",
        "publication.name": f"{names.prefix}_publication",
        "publication.autocreate.mode": "filtered",
        "table.include.list": "public.things",
        "snapshot.mode": "no_data",
        "poll.interval.ms": 10,
    }
    url = f"{stack.connect}/connectors/{names('connector')}"
    answer = urllib3.request("PUT", f"{url}/config", json=config)
    assert answer.status == 201, answer.data
    wait_running(f"{url}/status")
    wait_for_reader(database, f"{names.prefix}_slot")
    return topic


def wait_running(url: str) -> None:
    """Waits until the connector's only task runs."""
    deadline = time.monotonic() + 60
    state: dict[str, Any] = {}
    while time.monotonic() < deadline:
        answer = urllib3.request("GET", url)
        state = answer.json() if answer.status == 200 else {}
        if [task["state"] for task in state.get("tasks", [])] == ["RUNNING"]:
            return
        time.sleep(0.1)
    pytest.fail(f"the connector does not run: {state}")


def wait_for_reader(database: Database, slot: str) -> None:
    """Waits until a connector reads the slot. Changes committed afterwards are streamed."""
    deadline = time.monotonic() + 60
    while not database.query("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", [slot]):
        assert time.monotonic() < deadline, "nobody reads from the slot"
        time.sleep(0.1)


@pytest.fixture
def consumer(stack: Stack, names: Names) -> Iterator[Consumer]:
    """Yields a consumer that starts at the beginning of its topics."""
    created = Consumer({"bootstrap.servers": stack.kafka, "group.id": names("reader"), "auto.offset.reset": "earliest"})
    yield created
    created.close()


def read(consumer: Consumer, count: int, seconds: float = 30) -> list[dict[str, Any]]:
    """Returns the next events."""
    events: list[dict[str, Any]] = []
    deadline = time.monotonic() + seconds
    while len(events) < count and time.monotonic() < deadline:
        if (message := consumer.poll(0.2)) is None:
            continue
        if error := message.error():
            raise KafkaException(error)
        if value := message.value():  # otherwise a tombstone
            events.append(json.loads(value))
    return events


def test_debezium_streams_changes_with_both_images(database: Database, topic: str, consumer: Consumer) -> None:
    consumer.subscribe([topic])
    database.execute(
        "INSERT INTO things VALUES (1, 'one')",
        "UPDATE things SET name = 'uno' WHERE id = 1",
        "DELETE FROM things WHERE id = 1",
    )
    seen = [(event["op"], event["before"], event["after"]) for event in read(consumer, 3)]
    assert seen == [
        ("c", None, {"id": 1, "name": "one"}),
        ("u", {"id": 1, "name": "one"}, {"id": 1, "name": "uno"}),
        ("d", {"id": 1, "name": "uno"}, None),
    ]


def test_a_crashed_server_keeps_its_data(stack: Stack, database: Database, names: Names) -> None:
    database.execute("CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
    before = stack.pid("postgres")
    stack.kill("postgres", signal.SIGKILL)
    assert "postgres" not in stack.running()
    stack.restart("postgres")
    assert stack.pid("postgres") != before
    assert database.query("SELECT id FROM kept") == [(7,)]
