"""The recipes of docs/documents-topic.md, with the code and the connector definition of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import devstack
from syncer import sinks
from syncer.connect.client import Connect
from syncer.connect.definition import Definition
from syncer.document import Batch
from syncer.ports import Sink
from tests.conftest import temporary_home
from tests.contracts.sinks import compiled
from tests.harness import Names
from tests.harness.database import fresh_database
from tests.harness.names import fresh_names
from tests.harness.waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "documents-topic.md").read_text("utf-8")


def block(language: str) -> str:
    """Returns the only block of the page in this language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def sink_on(kafka: str, topic: str, **settings: str) -> Sink:
    connection = {"bootstrap_servers": kafka, "topic_prefix": "shop", "partitions": 2}
    sink = sinks.build("kafka", {"topic": topic, **settings}, model=compiled(topic), connection=connection)
    sink.prepare()
    return sink


def test_the_consumer_of_the_page_keeps_the_newest_documents(stack: devstack.Stack, names: Names) -> None:
    topic = names("documents")
    sink = sink_on(stack.kafka, topic)
    sink.write(Batch(5, {"1": b'{"name": "Ada"}', "2": b'{"name": "Grace"}', "3": b'{"name": "Edsger"}'}, []))
    sink.write(Batch(7, {"1": b'{"name": "Augusta"}'}, ["2"]))
    late = Producer({"bootstrap.servers": stack.kafka, "partitioner": "murmur2_random"})
    late.produce(topic, b'{"name": "old"}', "1", headers=[("version", b"6")])
    assert late.flush(10) == 0
    code = block("python").replace("127.0.0.1:9092", stack.kafka).replace("documents.customers", topic)
    code = code.replace("my-cache", names("cache"))
    found: dict[str, Any] = {}
    exec(compile(code, "docs/documents-topic.md", "exec"), found)
    assert found["documents"] == {"1": {"name": "Augusta"}, "3": {"name": "Edsger"}}
    sink.close()


@pytest.fixture(scope="module")
def with_jdbc() -> Iterator[devstack.Stack]:
    """A stack whose Kafka Connect has the connector for SQL databases."""
    started = devstack.start(
        temporary_home(), only=("postgres", "kafka", "connect"), versions={"jdbc": "3.5"}, ephemeral=True
    )
    try:
        yield started
    finally:
        started.remove()


@pytest.mark.full
def test_kafka_connect_writes_the_documents_to_a_table(with_jdbc: devstack.Stack) -> None:
    stack = with_jdbc
    with fresh_names(stack) as names, fresh_database(stack) as database:
        database.execute(*block("sql").split(";\n")[:-1])
        address = f"jdbc:postgresql://{database.host}:{database.port}/{database.name}"
        login = {"connection.username": database.user, "connection.password": database.password}
        topic = names("documents")
        config = json.loads(block("json")) | {"topics": topic, "connection.url": address} | login
        sink = sink_on(stack.kafka, topic)
        sink.write(Batch(5, {"1": b'{"name": "Ada"}', "2": b'{"name": "Grace"}'}, []))
        connect = Connect(stack.connect)
        connect.apply(Definition(names("jdbc"), config, frozenset()))

        def documents() -> dict[str, Any]:
            return dict(database.query("SELECT id, body FROM customers"))

        until(lambda: documents() == {"1": {"name": "Ada"}, "2": {"name": "Grace"}}, documents)
        sink.write(Batch(7, {"1": b'{"name": "Augusta", "tags": [1, null]}', "3": b'{"name": "Edsger"}'}, ["2"]))
        expected = {"1": {"name": "Augusta", "tags": [1, None]}, "3": {"name": "Edsger"}}
        until(lambda: documents() == expected, lambda: (documents(), connect.status(names("jdbc"))))
        sink.close()
        connect.close()
