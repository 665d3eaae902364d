"""Tests feed, subscription and mailbox together, in any schedule of writes, reads and reconnects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncer.ports import DocumentWrite
from syncer.serving.push import feed as feeds
from syncer.serving.push.change import Change
from syncer.serving.push.cursor import Cursor
from syncer.serving.push.feed import Feed, changes
from syncer.serving.push.filters import Filter
from syncer.serving.push.mailbox import Mailbox
from syncer.serving.push.subscription import Limits, Subscription
from syncer.serving.push.versions import RecentVersions

KEYS = ("a", "b", "c", "d", "e")
PARTITION = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0}
WINDOW = 100.0
NOTHING = Filter()


@dataclass
class Log:
    """A documents topic in memory: two partitions, and writes of older versions that come late."""

    writes: list[DocumentWrite] = field(default_factory=list)
    newest: dict[str, tuple[int, Any]] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    clock: int = 1

    def append(self, key: str, document: Any, version: int | None = None) -> None:
        """version: without it, a new one."""
        if version is None:
            self.clock += 1
            version = self.clock
        partition = PARTITION[key]
        body = None if document is None else orjson.dumps(document)
        self.writes.append(DocumentWrite(partition, self.ends[partition], key, version, body, self.clock))
        self.ends[partition] += 1
        if version >= self.newest.get(key, (0, None))[0]:
            self.newest[key] = version, document

    def append_late(self, key: str) -> None:
        """Appends an older version of a document, if it has one."""
        if key in self.newest:
            self.append(key, {"old": True}, self.newest[key][0] - 1)

    def state(self, wanted: Callable[[Any], bool] = lambda _: True) -> dict[str, Any]:
        return {key: one for key, (_, one) in self.newest.items() if one is not None and wanted(one)}


class Client:
    """Applies changes, and keeps the id of the last event that it has received."""

    def __init__(self, filter: Filter) -> None:
        self.filter, self.documents = filter, dict[str, Any]()
        self.id = ""
        self.subscription: Subscription | None = None

    def connect(self, feed: Feed, log: Log) -> None:
        """Connects as `hub.py` does: from memory if the feed covers the id, else through the topic."""
        offsets = dict(enumerate(Cursor.decode(self.id).offsets)) if self.id else {0: 0, 1: 0}
        one = Subscription(self.filter, Limits(100, 1 << 20), offsets, documents=True, wake=lambda: None)
        if not feed.join(one):
            for change in changes(log.writes, RecentVersions(WINDOW)):  # a window before the offsets, at least
                one.offer(change)
            one.advance(log.ends)
            while not feed.join(one):
                deliver(feed, log)
        self.subscription = one

    def receive(self, feed: Feed, size: int, lost: bool) -> None:
        """Takes changes. lost: the connection ends before the last one and its id arrive."""
        one = self.subscription
        if one is None:
            return
        taken = one.take(size)
        one.advance(feed.position)
        id = feed.cursor(one.offsets).encode()
        for pending in taken[:-1] if lost else taken:
            key, document = pending.change.key, pending.change.document
            if pending.op == "upsert":
                self.documents[key] = document
            else:
                self.documents.pop(key, None)
        if lost:
            self.disconnect(feed)
        else:
            self.id = id

    def disconnect(self, feed: Feed) -> None:
        if self.subscription is not None:
            feed.leave(self.subscription)
        self.subscription = None


def deliver(feed: Feed, log: Log, number: int = 1000) -> None:
    """The follower reads the next writes."""
    left = [write for write in log.writes if write.offset >= feed.position[write.partition]][:number]
    position = dict(feed.position)
    for write in left:
        position[write.partition] = write.offset + 1
    feed.deliver(left, position)


WRITES = st.tuples(st.just("write"), st.sampled_from(KEYS), st.none() | st.sampled_from([1, 2, 3]))
STEPS = st.one_of(
    WRITES,
    WRITES,
    st.tuples(st.just("late"), st.sampled_from(KEYS)),
    st.tuples(st.just("deliver"), st.integers(1, 5)),
    st.tuples(st.just("receive"), st.sampled_from([1, 500, 10_000]), st.booleans()),
    st.tuples(st.just("disconnect")),
    st.tuples(st.just("restart")),
)
FILTERS: list[tuple[Filter, Callable[[str, Any], bool]]] = [
    (NOTHING, lambda key, document: True),
    (Filter.parse(["a", "b"], []), lambda key, document: key in ("a", "b")),
    (Filter.parse([], ["n:1"]), lambda key, document: document.get("n") == 1),
    (Filter.parse(["a", "c"], ["n:2"]), lambda key, document: key in ("a", "c") and document.get("n") == 2),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=60), st.sampled_from(FILTERS), st.sampled_from([1, 3, 4000]))
def test_a_client_has_exactly_the_last_state_after_any_schedule(
    steps: list[Any], filtered: tuple[Filter, Callable[[str, Any], bool]], recent: int
) -> None:
    filter, wanted = filtered
    log = Log()
    client = Client(filter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "MAX_RECENT", recent)
        feed = Feed("topic", WINDOW, {0: 0, 1: 0}, {0: 0, 1: 0})
        for step in steps:
            match step:
                case "write", key, number:
                    log.append(key, None if number is None else {"n": number})
                case "late", key:
                    log.append_late(key)
                case "deliver", number:
                    deliver(feed, log, number)
                case "receive", size, lost:
                    if client.subscription is None:
                        client.connect(feed, log)
                    client.receive(feed, size, lost)
                case ("disconnect",):
                    client.disconnect(feed)
                case ("restart",):  # another process, which reads the last minutes first
                    client.disconnect(feed)
                    feed = Feed("topic", WINDOW, {0: 0, 1: 0}, log.ends)
                    deliver(feed, log)
        deliver(feed, log)
        if client.subscription is None:
            client.connect(feed, log)
        while client.subscription is not None and client.subscription.waiting:
            client.receive(feed, 10_000, False)
    assert client.documents == {key: one for key, one in log.state().items() if wanted(key, one)}


def test_an_older_version_that_comes_late_reaches_no_client() -> None:
    log, feed = Log(), Feed("topic", WINDOW, {0: 0, 1: 0}, {0: 0, 1: 0})
    log.append("a", {"n": 2})
    log.append_late("a")
    deliver(feed, log)
    client = Client(NOTHING)
    client.connect(feed, log)
    client.receive(feed, 10_000, False)
    assert client.documents == {"a": {"n": 2}}


def test_a_version_before_the_start_of_the_feed_hides_a_late_one_behind_it() -> None:
    log = Log()
    log.append("a", {"n": 2})
    ends = dict(log.ends)
    feed = Feed("topic", WINDOW, {0: 0, 1: 0}, ends)
    assert not feed.covers(ends), "it does not know the versions of the last minutes yet"
    deliver(feed, log)
    log.append_late("a")
    deliver(feed, log)
    client = Client(NOTHING)
    client.id = Cursor.of(feed.topic, 0, ends).encode()
    client.connect(feed, log)
    client.receive(feed, 10_000, False)
    assert client.documents == {}


def test_records_that_the_syncer_did_not_write_are_ignored() -> None:
    foreign = DocumentWrite(0, 0, "a", 0, b"no JSON", 0)
    assert changes([foreign], RecentVersions(WINDOW)) == []


def change(key: str, offset: int, size: int = 10) -> Change:
    return Change(DocumentWrite(0, offset, key, offset + 1, bytes(size), 0))


def test_a_slow_client_gets_the_newest_change_of_a_key_and_is_not_starved() -> None:
    box = Mailbox(10, 1 << 20, documents=True)
    for offset in range(100):
        box.put(change("hot", 2 * offset), "upsert")
        box.put(change("cold", 2 * offset + 1), "upsert")
    assert len(box) == 2 and not box.overflowed
    assert box.offsets({0: 200}) == {0: 0}, "it has received nothing"
    [first] = box.take(1)
    assert (first.change.key, first.change.offset) == ("hot", 198)
    assert box.offsets({0: 200}) == {0: 1}
    box.take(1)
    assert box.offsets({0: 200}) == {0: 200} and not box.take(1)


def test_a_mailbox_is_bounded_by_keys_and_by_bytes() -> None:
    box = Mailbox(3, 1 << 20, documents=True)
    for offset in range(3):
        box.put(change(str(offset), offset), "upsert")
    assert (box.half_full, box.overflowed) == (True, False)
    box.put(change("3", 3), "upsert")
    assert (box.overflowed, len(box)) == (True, 0)
    box.put(change("3", 4), "upsert")
    assert not len(box)
    box = Mailbox(100, 2000, documents=True)
    box.put(change("large", 0, 5000), "upsert")
    assert len(box) == 1, "one document always fits"
    box.put(change("small", 1), "upsert")
    assert box.overflowed
    box = Mailbox(100, 2000, documents=False)
    for offset in range(5):
        box.put(change(str(offset), offset, 5000), "upsert")
    assert not box.overflowed, "documents that are not sent do not count"


def test_a_full_mailbox_ends_the_stream_with_a_reason() -> None:
    one = Subscription(NOTHING, Limits(1, 1000), {0: 0}, documents=False, wake=lambda: None)
    one.offer(change("a", 0))
    one.offer(change("b", 1))
    assert "too slowly" in one.refetch and not one.waiting
    one.must_refetch("another reason")
    assert "too slowly" in one.refetch


def test_the_newest_versions_are_forgotten_by_time_and_number() -> None:
    versions = RecentVersions(10.0, max_keys=2)
    assert not versions.is_late("a", 5, 1000)
    assert versions.is_late("a", 4, 9000)
    versions.is_late("b", 1, 9000)
    versions.is_late("c", 1, 9000)
    assert versions.is_late("a", 4, 9000), "the last but one dictionary is still known"
    versions.is_late("d", 1, 9000)
    versions.is_late("e", 1, 9000)
    assert not versions.is_late("a", 4, 9000)
    versions = RecentVersions(10.0)
    versions.is_late("a", 5, 1000)
    versions.is_late("b", 5, 12_000)
    assert versions.is_late("a", 4, 12_000)
    versions.is_late("b", 5, 30_000)
    assert not versions.is_late("a", 4, 30_000)


def test_all_clients_together_get_a_limited_number_of_sends() -> None:
    feed = Feed("t", WINDOW, {0: 0}, {0: 0})
    clients = [
        Subscription(Filter.parse(keys, []), Limits(9, 9999), {0: 0}, documents=False, wake=lambda: None)
        for keys in ([], ["a"], ["a", "b"]) * 100
    ]
    for number, client in enumerate(clients, start=1):
        assert feed.join(client)
        assert number / feed.pause == pytest.approx(4000.0)
    for client in [*clients, *clients]:
        feed.leave(client)
    assert feed.pause == 0.0
    for _ in range(3000):
        feed.join(Subscription(NOTHING, Limits(9, 9999), {0: 0}, documents=False, wake=lambda: None))
    assert feed.pause == 0.25, "a client waits no longer, however many there are"


def test_the_time_of_a_cursor_is_one_at_which_the_feed_had_everything() -> None:
    feed = Feed("topic", WINDOW, {0: 0}, {0: 0})
    feed.saw_ends({0: 5}, 100.0)
    assert feed.at == 0
    feed.deliver([], {0: 5})
    assert feed.cursor().at == 100 and feed.cursor().offsets == (5,)
    feed.saw_ends({0: 6}, 110.0)
    assert feed.at == 100
