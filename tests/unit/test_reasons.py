"""Why a read model waits: written down when it lasts, taken back when it has ended, not again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from syncer.errors import Retry
from syncer.reasons import Reasons, written

LOOKS = 5.0


class Play:
    """Looks every five seconds, and what was written at which of them."""

    def __init__(self) -> None:
        self.saved: list[Mapping[str, Any]] = []
        self.reasons = Reasons(self.saved.append)
        self.now = 0.0

    def look(self, *reasons: str) -> list[str]:
        """What is written with these looks."""
        before = len(self.saved)
        for reason in reasons:
            self.now += LOOKS
            self.reasons.look(reason, self.now, int(self.now * 1000))
        return [str(value.get("reason", "")) for value in self.saved[before:]]


def test_what_lasts_is_written_once_and_taken_back() -> None:
    play = Play()
    assert play.look("", "", "busy") == []
    assert play.look("busy", "busy", "busy") == ["busy"]
    assert play.look("", "") == [""]
    assert play.look("", "", "") == []


def test_what_comes_and_goes_is_not_written() -> None:
    play = Play()
    assert play.look(*["busy", ""] * 20) == []
    play.look("busy", "busy")
    assert play.look(*["", "busy"] * 5) == []


def test_a_reason_that_counts_is_the_same_and_is_renewed_while_it_lasts() -> None:
    play = Play()
    looks = [f"a message has not come for {n} s" for n in range(0, 125, 5)]
    told = play.look(*looks)
    assert told[0] == looks[1] and len(told) == 2
    assert play.look("another") == ["another"]


def test_it_holds_for_as_long_as_it_is_renewed() -> None:
    play = Play()
    play.look("busy", "busy")
    at = play.saved[0]["at_ms"]
    assert written(play.saved[0], at + 61_000) == "busy"
    assert written(play.saved[0], at + 181_000) == written({}, at) == ""


def test_it_ends_with_the_process() -> None:
    play = Play()
    play.reasons.end()
    assert play.saved == []
    play.look("busy", "busy")
    play.reasons.end()
    assert play.saved[1:] == [{}]


def test_what_could_not_be_written_is_tried_again() -> None:
    saved: list[Mapping[str, Any]] = []
    away = [True]

    def save(value: Mapping[str, Any]) -> None:
        if away.pop():
            away.append(False)
            raise Retry("Kafka is away")
        away.append(False)
        saved.append(value)

    reasons = Reasons(save)
    reasons.look("busy", 0.0, 0)
    with pytest.raises(Retry):
        reasons.look("busy", 5.0, 5000)
    reasons.look("busy", 10.0, 10_000)
    assert saved == [{"reason": "busy", "at_ms": 10_000}]
