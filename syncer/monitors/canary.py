"""The canary: numbered messages that travel the way of the changes, so that a loss on it shows. Pure.

A daemon commits a message to PostgreSQL's log now and then. Debezium hands on, in the order of the commits,
whatever its slot has; all messages have one key, so Kafka keeps that order. Hence, of two messages of which
one was committed before the other was begun, the first has to arrive first. If only the second arrives, the
slot has skipped a stretch of the log, and with it every change there.

Each process has a series of its own, and expects only messages that it knows to be committed: one whose
commit was not acknowledged is not expected, and does no harm if it comes. A process takes over the last
message that any process has noted, so that the time between two processes is watched, too. Duplicates (a
connector begins again where it was sure of) and other processes' messages are not expected, and so are
passed over.

A message that arrives proves that a later message arrived, not that every change before it did. What it
cannot show: a stretch that is skipped between two messages, as none of them is in it; and single rows that
the connector skips when it resumes (`monitors/connector_resumes.py`).
"""

from __future__ import annotations

import binascii
from collections import deque
from typing import NamedTuple

import orjson

from syncer.checks.connector import CANARY_PREFIX

ON_ITS_WAY = 2.0
"""Seconds that a message may take before its age counts as a delay."""


class CanaryMessage(NamedTuple):
    """One message."""

    series: str
    number: int

    def __str__(self) -> str:
        return f"{self.series}:{self.number}"


class Canary:
    """One process's series, and what is expected of it. For one thread. Times: seconds of one clock."""

    def __init__(self, series: str) -> None:
        self.series = series
        self.number = 0
        self._expected: deque[tuple[CanaryMessage, float]] = deque()

    def next(self) -> CanaryMessage:
        """The next message to commit. A number is never used again, also if the commit fails."""
        self.number += 1
        return CanaryMessage(self.series, self.number)

    def committed(self, mark: CanaryMessage, now: float) -> None:
        """It is in the log for certain: from now on it is expected, after all before it."""
        self._expected.append((mark, now))

    def arrived(self, mark: CanaryMessage) -> list[CanaryMessage]:
        """The messages that should have come before this one: each is a proof of loss. They are not expected
        any more."""
        if all(mark != expected for expected, _ in self._expected):
            return []
        overtaken = []
        while (first := self._expected.popleft()[0]) != mark:
            overtaken.append(first)
        return overtaken

    def missing(self, asked: float) -> float:
        """When the oldest expected message was committed, if that was long enough before `asked`; 0.0 if not.
        asked: when the topic was last read. A message is on its way for a moment: that is no delay."""
        if self._expected and asked - self._expected[0][1] >= ON_ITS_WAY:
            return self._expected[0][1]
        return 0.0

    def age(self, now: float) -> float:
        """Seconds that the oldest expected message is on its way; 0 if none is."""
        return now - self._expected[0][1] if self._expected else 0.0

    def forget(self) -> None:
        """Expect nothing: the stream is known to have begun anew."""
        self._expected.clear()


def read(value: bytes | None) -> CanaryMessage | None:
    """The mark in a record of Debezium's message topic; None if it is no message of ours."""
    try:
        message = orjson.loads(value or b"null")["message"]
        if message["prefix"] != CANARY_PREFIX:
            return None
        series, _, number = binascii.unhexlify(message["content"]).decode().rpartition(":")
        return CanaryMessage(series, int(number))
    except (ValueError, KeyError, TypeError):
        return None
