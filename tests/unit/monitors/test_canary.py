"""Tests which arrivals of canary messages prove a loss of changes."""

from __future__ import annotations

import json
from collections import deque

from syncer.checks.connector import CANARY_PREFIX
from syncer.monitors.canary import Canary, CanaryMessage, read


def sent(canary: Canary, count: int) -> list[CanaryMessage]:
    messages = [canary.next() for _ in range(count)]
    for at, message in enumerate(messages):
        canary.committed(message, float(at))
    return messages


def test_messages_in_order_prove_no_loss() -> None:
    canary = Canary("a")
    messages = sent(canary, 3)
    assert [canary.arrived(message) for message in messages] == [[], [], []]
    assert canary.age(100.0) == 0


def test_overtaken_messages_are_reported_as_lost_once() -> None:
    canary = Canary("a")
    one, two, three, four = sent(canary, 4)
    assert canary.arrived(one) == []
    assert canary.arrived(four) == [two, three]
    assert canary.arrived(three) == []


def test_duplicates_and_messages_of_other_processes_are_ignored() -> None:
    """A connector that restarts repeats messages. Another process has a series of its own."""
    canary = Canary("a")
    one, two = sent(canary, 2)
    assert [canary.arrived(m) for m in (one, CanaryMessage("b", 9), one, two, one, two)] == [[]] * 6


def test_a_commit_that_was_not_acknowledged_is_not_expected() -> None:
    """It may arrive or not. Its number is not used again."""
    canary = Canary("a")
    unsure = canary.next()
    [sure] = sent(canary, 1)
    assert unsure != sure
    assert canary.arrived(sure) == [] and canary.arrived(unsure) == []


def test_the_message_of_an_ended_process_is_expected_first() -> None:
    canary = Canary("b")
    left = CanaryMessage("a", 7)
    canary.committed(left, 0.0)
    [own] = sent(canary, 1)
    assert canary.arrived(own) == [left]


def test_the_age_is_that_of_the_oldest_message() -> None:
    canary = Canary("a")
    one, _two = sent(canary, 2)
    assert canary.age(10.0) == 10.0
    canary.arrived(one)
    assert canary.age(10.0) == 9.0
    canary.forget()
    assert canary.age(10.0) == 0.0


def test_a_message_counts_as_missing_only_if_a_later_read_did_not_find_it() -> None:
    canary = Canary("a")
    [one] = sent(canary, 1)
    assert canary.missing_since(1.9) == 0.0
    canary.committed(canary.next(), 5.0)
    canary.arrived(one)
    assert canary.missing_since(6.0) == 0.0 and canary.missing_since(7.0) == 5.0
    canary.forget()
    assert canary.missing_since(99.0) == 0.0


def test_a_record_is_read_in_the_format_of_debezium() -> None:
    def record(prefix: str, content: str) -> bytes:
        return json.dumps({"op": "m", "message": {"prefix": prefix, "content": content}}).encode()

    assert read(record(CANARY_PREFIX, b"a1:12".hex())) == CanaryMessage("a1", 12)
    for other in (
        record("app", "613a31"),
        record(CANARY_PREFIX, "no hex"),
        record(CANARY_PREFIX, "61"),
        b"[]",
        b"no",
        None,
    ):
        assert read(other) is None


def test_the_age_can_be_read_while_another_thread_takes_the_last_message() -> None:
    class Emptied(deque[tuple[CanaryMessage, float]]):
        """The last message arrives right after a check that there is one."""

        def __bool__(self) -> bool:
            self.clear()
            return True

    canary = Canary("a")
    canary._expected = Emptied([(CanaryMessage("a", 1), 5.0)])
    assert canary.age(7.0) == 2.0
    canary._expected.clear()
    assert canary.age(7.0) == 0.0
