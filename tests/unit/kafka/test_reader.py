"""Topics that may not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer

from syncer.errors import Fatal
from syncer.kafka.reader import TopicReader
from tests.harness.faulty_broker import FETCH, FaultyBroker, faulty_broker

START = {("orders", 0): 0}
ENDS = {("orders", 0): 1}
NO_ADMIN: Any = None


@pytest.fixture(scope="module")
def broker() -> Iterator[FaultyBroker]:
    """A broker with one record."""
    with faulty_broker() as broker:
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce("orders", b"x", partition=0)
        assert producer.flush(10) == 0
        yield broker


READS: dict[str, Callable[[TopicReader], int]] = {
    "first": lambda reader: len(reader.first(START)[("orders", 0)]),
    "between": lambda reader: len(list(reader.between(START, ENDS))),
    "tail": lambda reader: len(reader.tail(START).read(ENDS, timeout=10)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_topic_that_may_not_be_read_needs_an_operator(
    broker: FaultyBroker, read: Callable[[TopicReader], int]
) -> None:
    reader = TopicReader({"bootstrap.servers": broker.address}, NO_ADMIN)
    assert read(reader) == 1
    broker.fail(FETCH, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(Fatal, match="cannot read topic orders") as caught:
        read(reader)
    assert "ACLs" in caught.value.hint
