"""Documents as records, and the settings of their topic. `tests/contracts` writes them to Kafka."""

from __future__ import annotations

import pytest
from confluent_kafka import Message

from syncer.document import Batch
from syncer.events import TableName
from syncer.kafka.names import topic_of
from syncer.sinks.kafka import records, topic
from syncer.sinks.kafka.settings import Connection, Settings, client_settings

CONNECTION = Connection(bootstrap_servers="k:9092", topic_prefix="shop", group_prefix="syncer", properties={})
SETTINGS = Settings.model_validate({"topic": "t"})
GOOD = topic.configuration(SETTINGS, 3)


def headers_of(*values: tuple[str, bytes | None]) -> int:
    """Returns the version that is read from these headers."""
    message = Message(topic="t", partition=0, offset=3, key=b"a", value=b"{}", headers=list(values), timestamp=(1, 5))
    [found] = records.read([message])
    return found.version


def test_the_headers_say_what_a_record_shows_and_who_wrote_it() -> None:
    batch = Batch(281474976711656, {"a": b"{}"}, [], committed_ms=1700000000000)
    assert records.headers(batch, "a", "orders", 2) == [
        ("version", b"281474976711656"),
        ("model", b"orders"),
        ("generation", b"2"),
        ("committed_ms", b"1700000000000"),
    ]
    assert "committed_ms" not in dict(records.headers(Batch(1, {}, []), "a", "orders", 1))


@pytest.mark.parametrize("value", [None, b"", b"-1", b"x", b"1.5", b"9" * 20, "٣".encode()])
def test_a_record_without_a_valid_version_has_version_0(value: bytes | None) -> None:
    assert headers_of(("version", value)) == 0
    assert headers_of() == 0
    assert headers_of(("version", b"7")) == 7


def test_the_settings_of_a_new_topic_fit() -> None:
    assert list(topic.problems(SETTINGS, GOOD, CONNECTION, 3)) == []
    assert GOOD["min.insync.replicas"] == "2"
    assert topic.configuration(SETTINGS, 1)["min.insync.replicas"] == "1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cleanup.policy", "delete"),
        ("cleanup.policy", "compact,delete"),
        ("min.compaction.lag.ms", "0"),
        ("delete.retention.ms", "60000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("message.timestamp.before.max.ms", "9223372036854775807"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "1"),
    ],
)
def test_a_setting_that_can_lose_documents_is_refused(key: str, value: str) -> None:
    [error] = topic.problems(SETTINGS, GOOD | {key: value}, CONNECTION, 3)
    assert error.why.startswith(f"{key}={value}: ")
    assert error.hint.startswith("kafka-configs.sh --bootstrap-server k:9092 --alter --topic t --add-config ")
    assert error.hint.endswith(f" {key}={GOOD[key]}")


def test_a_broker_without_a_setting_is_refused() -> None:
    old = {key: value for key, value in GOOD.items() if not key.startswith("message.timestamp.b")}
    [error] = topic.problems(SETTINGS, old, CONNECTION, 3)
    assert "unknown to this Kafka" in error.why and "Kafka 3.6" in error.why


@pytest.mark.parametrize(
    ("key", "value"), [("cleanup.policy", "compact"), ("retention.ms", "604800000"), ("retention.bytes", "1")]
)
def test_a_topic_that_keeps_all_records_deletes_none(key: str, value: str) -> None:
    settings = Settings.model_validate({"topic": "t", "cleanup_policy": "delete"})
    good = topic.configuration(settings, 3)
    assert list(topic.problems(settings, good, CONNECTION, 3)) == [] and topic.lossy(good) == ""
    [error] = topic.problems(settings, good | {key: value}, CONNECTION, 3)
    assert error.why.startswith(f"{key}={value}: ") and error.hint.endswith(f" {key}={good[key]}")
    assert topic.lossy(good | {key: value}) == f"{key}={value}"
    assert topic.lossy(GOOD) == "cleanup.policy=compact"


def test_one_replica_needs_no_second_one_in_sync() -> None:
    assert list(topic.problems(SETTINGS, GOOD | {"min.insync.replicas": "1"}, CONNECTION, 1)) == []


def test_names_of_other_topics_are_refused() -> None:
    assert "change events" in topic.reserved(topic_of("shop", TableName("public", "orders")), CONNECTION)
    assert "syncer's own" in topic.reserved("syncer.orders.1.work", CONNECTION)
    assert "state topic" in topic.reserved("syncer.state", CONNECTION.model_copy(update={"group_prefix": "s"}))
    assert topic.reserved("documents.orders", CONNECTION) == topic.reserved("shop-orders", CONNECTION) == ""


def test_the_window_covers_a_late_write_and_wrong_clocks() -> None:
    assert topic.window(30.0) == 120.0
    most = int(GOOD["min.compaction.lag.ms"]) / 1000
    assert 2 * topic.window(600.0) < 3600 <= most


def test_clients_share_the_properties_of_kafka() -> None:
    secret = CONNECTION.model_copy(update={"properties": {"sasl.password": "x"}})
    assert client_settings(secret)["sasl.password"] == "x"
