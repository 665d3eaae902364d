"""The state store reads only new records, and the whole topic when it cannot know what it missed."""

from __future__ import annotations

import threading
import time
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
        self.tails = 0
        """Readers that are open."""
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

    def id_and_end(self, topic: str) -> tuple[str, int | None]:
        return self.id, len(self.records) if self.id and not self.unlisted else None

    def tail(self, start: Mapping[Partition, int]) -> Tail:
        self.tails += 1
        return Tail(self, start)


class Tail:
    """Reads what was added since the last read."""

    def __init__(self, topic: Topic, start: Mapping[Partition, int]) -> None:
        self.topic, self.next = topic, dict(start)

    def read(self, ends: Mapping[Partition, int]) -> list[Record]:
        found = [record for record in self.topic.records[self.next[TOPIC, 0] :] if record]
        if self.topic.unreachable:
            raise ConnectionError
        self.topic.read += len(found)
        self.next = {(TOPIC, 0): len(self.topic.records)}
        return found

    def close(self) -> None:
        self.topic.tails -= 1


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
    assert topic.tails == 1, "a reader is opened again"


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


def test_callers_that_ask_at_about_the_same_time_share_one_read() -> None:
    """Twenty read models confirm their watermarks in one pass."""
    topic = Topic()
    state = store(topic)
    topic.put("orders", {"epoch": 1})
    asked = [time.monotonic() for _ in range(20)]
    assert all(state.load_since(moment) == {"orders": {"epoch": 1}} for moment in asked)
    topic.put("orders", {"epoch": 2})
    assert state.load_since(asked[-1])["orders"] == {"epoch": 1}, "that read began after all of them had asked"
    assert state.load_since(time.monotonic())["orders"] == {"epoch": 2}


def test_callers_that_wait_for_a_read_share_its_failure() -> None:
    """Each would otherwise repeat a read that takes up to 30 s, one after the other."""
    topic = Topic()
    topic.put("orders", {"epoch": 1})
    state, reads, errors = store(topic), list[int](), list[Retry]()
    reading, release = threading.Event(), threading.Event()

    class Hanging(Tail):
        def read(self, ends: Mapping[Partition, int]) -> list[Record]:
            reads.append(1)
            reading.set()
            assert release.wait(10)
            raise Retry("Kafka is unreachable")

    topic.tail = lambda start: Hanging(topic, start)  # type: ignore[method-assign]
    moment = time.monotonic()

    def call() -> None:
        with pytest.raises(Retry) as caught:
            state.load_since(moment)
        errors.append(caught.value)

    class Waiting:
        """The lock of the store. Counts the threads that asked for it."""

        def __init__(self) -> None:
            self.lock, self.asked = threading.Lock(), threading.Semaphore(0)

        def __enter__(self) -> None:
            self.asked.release()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    lock: Any = Waiting()
    state._lock = lock
    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert reading.wait(10) and all(lock.asked.acquire(timeout=10) for _ in threads)
    release.set()
    for thread in threads:
        thread.join(10)
    assert (len(errors), len(reads)) == (5, 1)
    del topic.tail
    assert state.load_since(moment) == {"orders": {"epoch": 1}}, "a later call reads again"
