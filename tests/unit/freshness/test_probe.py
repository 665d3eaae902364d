"""What the probe follows when the connector, the topic of its offsets or the messages change, and what it saves."""

from __future__ import annotations

import binascii
import json
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from syncer.checks.source import Reader
from syncer.clock import Identity, Snapshot
from syncer.connect.definition import Definition
from syncer.events import Position
from syncer.freshness import probe
from syncer.freshness.probe import Probe
from syncer.ports import Partition, Record
from syncer.postgres import candidate
from syncer.postgres.candidate import Taken
from syncer.registry.records import CanaryPosition, Proved, Stream

MESSAGES, OFFSETS = ("shop.message", 0), ("offsets", 0)


class Topics:
    """Topics with their first and last offsets, and the offsets from which each follower began."""

    def __init__(self) -> None:
        self.last: dict[Partition, int] = {("shop.message", 0): 0}
        self.first: dict[Partition, int] = {}
        self.followed: list[dict[Partition, int]] = []

    def create(self, topics: Collection[str], *, partitions: int = 0) -> list[str]:
        return []

    def ends(self, topics: Collection[str]) -> dict[Partition, int]:
        return {p: end for p, end in self.last.items() if p[0] in topics}

    def begins(self, topics: Collection[str]) -> dict[Partition, int]:
        return {p: self.first.get(p, 0) for p in self.ends(topics)}

    def follow(self, start: Mapping[Partition, int]) -> Any:
        self.followed.append(dict(start))
        return SimpleNamespace(close=lambda: None)


def following(topics: Topics) -> Probe:
    config = SimpleNamespace(
        kafka=SimpleNamespace(topic_prefix="shop"), connect=SimpleNamespace(offset_topic="offsets")
    )
    state = SimpleNamespace(load=lambda: SimpleNamespace(get=lambda key: None))
    registry: Any = SimpleNamespace(config=config, changes=topics, state=state)
    return Probe(registry)


def definition(name: str, slot: str = "shop") -> Definition:
    return cast(Definition, SimpleNamespace(name=name, config={"slot.name": slot}))


def test_it_follows_once_while_nothing_changes() -> None:
    topics = Topics()
    topics.last[OFFSETS] = 7
    one = following(topics)
    for _ in range(3):
        one.follow(Stream(), definition("shop"))
    one.follow(Stream(), None)  # the definition cannot be read for a moment
    assert topics.followed == [{MESSAGES: 0, OFFSETS: 7}]


@pytest.mark.parametrize("changed", [definition("shop2"), definition("shop", "slot2")])
def test_a_connector_that_is_defined_otherwise_is_followed(changed: Definition) -> None:
    topics = Topics()
    topics.last[OFFSETS] = 7
    one = following(topics)
    one.follow(Stream(), definition("shop"))
    topics.last[OFFSETS] = 9
    one.follow(Stream(), changed)
    assert topics.followed[1:] == [{MESSAGES: 0, OFFSETS: 9}]


def test_a_topic_of_offsets_that_is_created_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon may start before Kafka Connect."""
    topics = Topics()
    one = following(topics)
    one.follow(Stream(), definition("shop"))
    topics.last[OFFSETS] = 0
    one.follow(Stream(), definition("shop"))
    assert len(topics.followed) == 1, "it does not look again at once"
    monkeypatch.setattr(probe, "_LOOK_AGAIN", 0.0)
    one.follow(Stream(), definition("shop"))
    assert one.follows_offsets
    assert topics.followed[-1] == {MESSAGES: 0, OFFSETS: 0}


def test_messages_that_kafka_removed_are_not_read_for_ever() -> None:
    topics = Topics()
    topics.last[MESSAGES] = 5
    one = following(topics)
    one.follow(Stream(), None)
    topics.first[MESSAGES], topics.last[MESSAGES] = 8, 9
    one.close()
    one.follow(Stream(), None)
    assert topics.followed == [{MESSAGES: 5}, {MESSAGES: 9}]


def test_the_messages_of_many_waits_are_saved_once_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each save waits for Kafka, and makes every thread read the state topic again."""
    saved: list[CanaryPosition] = []
    one, connection = following(Topics()), cast(Any, None)
    registry: Any = one.registry
    registry.state.save = lambda key, position: saved.append(position)
    registry.stream = lambda max_age: Stream()
    taken = Taken(0x10, Snapshot.parse("20:20:"), 0, Identity(7, 1), 0x20, None, {})
    monkeypatch.setattr(candidate, "take", lambda *_: taken)
    monkeypatch.setattr(probe, "emit", lambda *_: None)
    for _ in range(50):
        one.take(connection, None, {}, {})
    assert [position.number for position in saved] == [1]
    one.save()
    one.save()
    assert [position.number for position in saved] == [1, 50]


@pytest.mark.parametrize("lost", [False, True])
def test_a_process_that_follows_a_stopped_one_finds_its_last_message_unless_it_was_lost(
    monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """The message is saved after it was read: the offsets are those from before it."""
    messages: list[bytes] = []
    values: dict[Any, CanaryPosition] = {}
    broken: list[str] = []

    class Follower:
        def __init__(self, start: Mapping[Partition, int]) -> None:
            self.next = start[MESSAGES]

        def poll(self, timeout: float) -> list[Record]:
            start, self.next = self.next, len(messages)
            return [Record(Position(*MESSAGES, n), None, messages[n]) for n in range(start, self.next)]

        def close(self) -> None: ...

    def emit(connection: Any, prefix: str, text: str) -> None:
        content = binascii.hexlify(text.encode()).decode()
        messages.append(json.dumps({"message": {"prefix": prefix, "content": content}}).encode())
        topics.last[MESSAGES] = len(messages)

    def noted(why: str, known: Stream, slot: str = "") -> Stream:
        broken.append(why)
        return known

    def started() -> Probe:
        one = following(topics)
        registry: Any = one.registry
        registry.state = SimpleNamespace(load=lambda: values, save=values.__setitem__)
        registry.stream = lambda max_age: Stream()
        registry.broken = noted
        return one

    topics = Topics()
    monkeypatch.setattr(topics, "follow", Follower)
    taken = Taken(0x10, Snapshot.parse("20:20:"), 0, Identity(7, 1), 0x20, None, {})
    monkeypatch.setattr(candidate, "take", lambda *_: taken)
    monkeypatch.setattr(probe, "emit", emit)
    first, connection = started(), cast(Any, None)
    for _ in range(2):
        first.take(connection, None, {}, {})
        first.poll(0)
    first.save()
    if lost:
        messages.pop()
    second = started()
    second.take(connection, None, {}, {})
    second.poll(0)
    assert bool(broken) is lost


def test_what_was_proved_is_kept_for_the_last_readers() -> None:
    topics, readers = Topics(), [Reader(number, None) for number in range(12)]
    topics.last[OFFSETS] = 7
    one = following(topics)
    for reader in [*readers[:9], readers[3]]:
        one._remember(Proved(reader, 1, 1, reader.pid))
    assert [proved.reader.pid for proved in one._proved.values()] == [1, 2, 4, 5, 6, 7, 8, 3]
    saved = [Proved(reader, 1, 1, 100) for reader in (readers[3], readers[11])]
    one._remember(*saved, earlier=True)  # another process saved them
    assert [(proved.reader.pid, proved.xmin) for proved in one._proved.values()] == [
        (number, number) for number in (1, 2, 4, 5, 6, 7, 8, 3)
    ]
    one._proved = {}
    one._remember(*saved, earlier=True)
    assert [proved.reader.pid for proved in one._proved.values()] == [3, 11]
