"""A letter stays open while the last state of its document is rejected, in any order of writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncer.events import Position
from syncer.kafka import dead_letters
from syncer.kafka.dead_letters import KafkaDeadLetters, KafkaOpenDeadLetters, key_of, subject_of
from syncer.ports import Record, Subject

NOWHERE: Any = None


@pytest.mark.parametrize("id", ["17", "a|b", "", "a/b/3", "record/x/0/1", "é\n", "7/"])
@pytest.mark.parametrize("version", [0, 1 << 48 | 12345])
def test_a_key_contains_its_subject_and_version(id: str, version: int) -> None:
    subject = Subject("document", id)
    assert subject_of(key_of(subject, version)) == (subject, version)
    record = Subject("record", "shop.public.orders/3/17")
    assert subject_of(key_of(record)) == (record, 0)


def test_handles_are_short_and_unique() -> None:
    handles = {Subject("document", str(n)).handle for n in range(1000)}
    assert len(handles) == 1000
    assert all(len(handle) == 8 and handle.isalnum() and handle.islower() for handle in handles)
    assert Subject("document", "17").handle != Subject("record", "17").handle


class Log:
    """Implements `DeliveryTracker` with a list: the topic, in the order in which records arrive.

    A record arrives with `flush`. A crash loses the records that were not flushed.
    """

    def __init__(self, topic: list[tuple[bytes, bool]]) -> None:
        self.topic = topic
        self.queued: list[tuple[bytes, bool]] = []
        self.headers: list[Mapping[str, str] | None] = []

    def put(self, topic: str, key: bytes, value: bytes | None, headers: Mapping[str, str] | None = None) -> None:
        self.queued.append((key, value is not None))
        self.headers.append(headers)

    def flush(self, count: int | None = None) -> None:
        arrives = self.queued[:count]
        del self.queued[: len(arrives)]
        self.topic += arrives


def lane(topic: list[tuple[bytes, bool]]) -> tuple[KafkaDeadLetters, Log]:
    """Returns a lane of a process that has just started, and so knows the open letters."""
    found, log = KafkaOpenDeadLetters(NOWHERE, NOWHERE, "dlq"), Log(topic)
    for key, is_letter in topic:
        found.fold(key, open=is_letter)
    tracker: Any = log
    return KafkaDeadLetters(tracker, "dlq", found), log


def open_letters(topic: list[tuple[bytes, bool]]) -> KafkaOpenDeadLetters:
    found = KafkaOpenDeadLetters(NOWHERE, NOWHERE, "dlq")
    for key, is_letter in topic:
        found.fold(key, open=is_letter)
    return found


def test_a_document_and_a_record_have_one_open_letter_each() -> None:
    topic: list[tuple[bytes, bool]] = []
    letters, log = lane(topic)
    for version in (5, 6, 7):
        letters.document("17", version, "no")
    for offset in (1, 2, 1):
        letters.record(Record(Position("t", 0, offset), None, b"?"), "no")
    log.flush()
    assert len(open_letters(topic)) == 3
    assert [k for k, _ in topic if subject_of(k)[0].kind == "document"][-1] == b"document/17/6"
    letters.accepted(["17", "18"], 6)  # older than the letter: does not resolve it
    log.flush()
    assert len(open_letters(topic)) == 3
    letters.accepted(["17", "18"], 7)
    log.flush()
    assert len(open_letters(topic)) == 2


def test_a_repeated_rejection_keeps_the_time_of_the_first() -> None:
    subject, known, log = Subject("document", "17"), KafkaOpenDeadLetters(NOWHERE, NOWHERE, "dlq"), Log([])
    known.fold(key_of(subject, 5), open=True, since_ms=1000)
    tracker: Any = log
    letters = KafkaDeadLetters(tracker, "dlq", known)
    letters.document("17", 6, "no")
    assert known.since(subject) == 1000
    assert [headers["since"] for headers in log.headers if headers] == ["1000"]
    letters.accepted(["17"], 7)
    assert known.since(subject) > 1000, "the subject has no open letter, so a new rejection begins now"


def test_a_resync_does_not_resolve_letters_of_the_active_generation() -> None:
    known = KafkaOpenDeadLetters(NOWHERE, NOWHERE, "dlq", oldest=2 << 48)
    known.fold(key_of(Subject("document", "17"), 1 << 48 | 5), open=True)
    assert list(known.resolved_by([("17", 2 << 48 | 5)])) == []
    known.fold(key_of(Subject("document", "17"), 2 << 48 | 5), open=True)
    assert list(known.resolved_by([("17", 2 << 48 | 5)])) == [key_of(Subject("document", "17"), 2 << 48 | 5)]


Steps = list[tuple[str, int, int]]
LANE = st.integers(0, 2)
STEP = st.one_of(
    st.tuples(st.just("handle"), LANE, st.integers(0, 3)),
    st.tuples(st.just("arrive"), LANE, st.integers(1, 3)),
    st.tuples(st.just("crash"), LANE, st.just(0)),
    st.tuples(st.just("compact"), st.just(0), st.just(0)),
)
# A sink rejects the first state in lane 1 and accepts the second. The tombstone arrives after everything else.
LATE: Steps = [("handle", 1, 0), ("arrive", 1, 1), ("handle", 1, 1)]


def play(earlier: list[bool], steps: Steps) -> int:
    """Returns the number of open letters after three lanes have handled the states of one document.

    earlier: whether the sinks accept each state. They reject the last state.
    steps: lanes handle states late, twice or never. Their records arrive late, or a crash loses them. The topic is
    compacted. In the end, one lane handles the last state; then the other lanes' records arrive.
    """
    accepted = [*earlier, False]
    topic: list[tuple[bytes, bool]] = []
    lanes = [lane(topic) for _ in range(3)]
    end = [("handle", 0, len(earlier)), ("arrive", 0, 99), ("arrive", 1, 99), ("arrive", 2, 99)]
    for what, which, n in (*steps, *end):
        letters, log = lanes[which]
        state = n % len(accepted)
        if what == "handle" and accepted[state]:
            letters.accepted(["17"], state + 1)
        elif what == "handle":
            letters.document("17", state + 1, "no")
        elif what == "arrive":
            log.flush(n)
        elif what == "crash":
            lanes[which] = lane(topic)
        else:
            last = {key: place for place, (key, _) in enumerate(topic)}
            topic[:] = [entry for place, entry in enumerate(topic) if last[entry[0]] == place]
    return len(open_letters(topic))


@settings(max_examples=400, deadline=None)
@example(earlier=[False, True], steps=LATE)
@given(earlier=st.lists(st.booleans(), max_size=2), steps=st.lists(STEP, max_size=12))
def test_the_letter_of_a_rejected_last_state_stays_open_in_any_order(earlier: list[bool], steps: Steps) -> None:
    assert play(earlier, steps) == 1


def test_one_key_per_document_would_lose_the_last_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "key_of", lambda subject, version=0: f"document/{subject.name}/0".encode())
    assert play([False, True], LATE) == 0
