"""The state store reads only new records, and the whole topic when it cannot know what it missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from syncer.errors import Retry
from syncer.events import Position
from syncer.kafka import state_store
from syncer.kafka.state_store import KafkaStateStore
from syncer.ports import Partition, Record

TOPIC = "syncer.state"


class Topic:
    """Kafka's admin client and a reader, over a list. Counts the records that were read."""

    def __init__(self) -> None:
        self.id, self.records, self.read = "1", list[Record | None](), 0
        self.unreachable = self.unlisted = False

    def put(self, key: str, value: Mapping[str, Any] | None) -> None:
        text = None if value is None else orjson.dumps(value)
        self.records.append(Record(Position(TOPIC, 0, len(self.records)), key.encode(), text))

    def compact(self, offset: int) -> None:
        self.records[offset] = None

    def ends(self, topics: list[str]) -> dict[Partition, int]:
        return {(TOPIC, 0): len(self.records)} if self.id and not self.unlisted else {}

    def ids(self, topics: list[str]) -> dict[str, str]:
        return {TOPIC: self.id} if self.id else {}

    def read_all(self, topic: str, start: Mapping[Partition, int]) -> list[Record]:
        found = [record for record in self.records[start.get((TOPIC, 0), 0) :] if record]
        if self.unreachable:
            raise ConnectionError
        self.read += len(found)
        return found


def store(topic: Any) -> KafkaStateStore:
    return KafkaStateStore(topic, topic, topic, TOPIC)


def test_only_new_records_are_read() -> None:
    topic = Topic()
    state = store(topic)
    for number in range(100):
        topic.put(f"model{number}", {"epoch": 1})
    assert len(state.load()) == 100 and topic.read == 100
    before = state.load()
    topic.put("model7", {"epoch": 2})
    topic.put("model8", None)
    now = state.load()
    assert topic.read == 102
    assert now["model7"] == {"epoch": 2} and "model8" not in now and len(now) == 99
    assert before["model7"] == {"epoch": 1} and len(before) == 100, "a caller may still iterate over it"


def test_a_recent_load_is_enough_for_a_caller_that_accepts_its_age() -> None:
    topic = Topic()
    state = store(topic)
    topic.put("orders", {"epoch": 1})
    state.load()
    topic.put("orders", {"epoch": 2})
    assert state.load(60.0)["orders"] == {"epoch": 1}
    assert state.load()["orders"] == {"epoch": 2}


@pytest.mark.parametrize("id", ["1", "2"])
def test_a_topic_that_was_created_again_or_truncated_is_read_as_a_whole(id: str) -> None:
    topic = Topic()
    state = store(topic)
    for name in ("orders", "customers"):
        topic.put(name, {"epoch": 1})
    state.load()
    topic.id, topic.records = id, []
    topic.put("orders", {"epoch": 5})
    assert state.load() == {"orders": {"epoch": 5}}


def test_a_topic_that_was_deleted_has_no_values() -> None:
    topic = Topic()
    state = store(topic)
    topic.put("orders", {"epoch": 1})
    assert state.load()
    topic.id = ""
    assert state.load() == {}


@pytest.mark.parametrize("loaded", [False, True])
def test_a_broker_that_does_not_list_the_topic_is_no_empty_store(loaded: bool) -> None:
    """An empty store would register every read model again."""
    topic = Topic()
    state = store(topic)
    topic.put("orders", {"epoch": 3})
    if loaded:
        state.load()
    topic.unlisted = True
    with pytest.raises(Retry, match="does not list it"):
        state.load()
    topic.unlisted = False
    assert state.load() == {"orders": {"epoch": 3}}


def test_records_that_took_the_offsets_of_lost_ones_are_read_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic()
    state = store(topic)
    for name in ("orders", "customers"):
        topic.put(name, {"epoch": 1})
    state.load()
    del topic.records[1]
    for name in ("orders", "people"):
        topic.put(name, {"epoch": 2})
    state.load()
    monkeypatch.setattr(state_store, "_READ_AGAIN", 0.0)
    assert state.load() == {"orders": {"epoch": 2}, "people": {"epoch": 2}}


def test_a_tombstone_that_compaction_removed_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot read for longer than Kafka keeps tombstones reads the whole topic."""
    topic = Topic()
    state = store(topic)
    for name in ("orders", "customers"):
        topic.put(name, {"epoch": 1})
    state.load()
    topic.put("orders", None)
    topic.put("customers", {"epoch": 2})
    topic.compact(0)
    topic.compact(2)
    monkeypatch.setattr(state_store, "_READ_AGAIN", 0.0)
    assert state.load() == {"customers": {"epoch": 2}}


def test_a_load_that_fails_changes_nothing() -> None:
    topic = Topic()
    state = store(topic)
    topic.put("orders", {"epoch": 1})
    state.load()
    topic.put("orders", {"epoch": 2})
    topic.unreachable = True
    with pytest.raises(ConnectionError):
        state.load()
    topic.unreachable = False
    assert state.load(60.0)["orders"] == {"epoch": 2}, "the failed load is repeated"
