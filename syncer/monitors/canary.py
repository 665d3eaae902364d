"""The canary: numbered messages that take the same path as changes, so that a loss on that path is detected. Pure.

A daemon regularly commits a message to PostgreSQL's WAL. Debezium forwards everything that its slot delivers, in the
order of the commits. All messages have one key, so Kafka keeps that order. Suppose that one message was committed
before another one was begun. Then the first has to arrive first. If only the second arrives, the slot has skipped a
part of the log, and with it every change in that part.

Each process numbers its own messages. It expects only messages whose commit was acknowledged. If another message of its
own arrives, that does no harm. A process also expects the last message that any process has saved, so the time between
two processes is covered, too. It ignores duplicates and messages of other processes. (A connector repeats messages when
it restarts from its last offset.)

Limits: the arrival of a message does not prove that every change before it arrived. If a gap lies between two messages,
no message is missing, so the canary does not detect the gap. Nor does it detect single rows that a connector skips
when it resumes (`monitors/connector_resumes.py`).
"""

from __future__ import annotations

import binascii
from collections import deque
from typing import NamedTuple

import orjson

from syncer.checks.connector import CANARY_PREFIX

ON_ITS_WAY = 2.0
"""Seconds that a message may take to arrive before its age counts as a delay."""


class CanaryMessage(NamedTuple):
    """One message, identified by the series of its process and its number."""

    series: str
    number: int

    def __str__(self) -> str:
        return f"{self.series}:{self.number}"


class Canary:
    """The series of one process, and the messages it expects. Times are seconds of one clock.

    For one thread, except `age`.
    """

    def __init__(self, series: str) -> None:
        self.series = series
        self.number = 0
        self._expected: deque[tuple[CanaryMessage, float]] = deque()
        self._known: set[CanaryMessage] = set()
        """The expected messages. After an outage of a day, thousands of messages of other processes are looked up."""

    def next(self) -> CanaryMessage:
        """Returns the next message to commit. A number is never used again, even if the commit fails."""
        self.number += 1
        return CanaryMessage(self.series, self.number)

    def committed(self, message: CanaryMessage, now: float) -> None:
        """Expects this message from now on, after all earlier ones. Its commit was acknowledged."""
        self._expected.append((message, now))
        self._known.add(message)

    def expects(self, message: CanaryMessage) -> bool:
        """Returns whether the message has not arrived yet, and its commit was acknowledged."""
        return message in self._known

    def arrived(self, message: CanaryMessage) -> list[CanaryMessage]:
        """Returns the messages that should have arrived before this one. Each of them proves a loss.

        They are not expected any more.
        """
        if not self.expects(message):
            return []
        overtaken = []
        while (first := self._expected.popleft()[0]) != message:
            overtaken.append(first)
        self._known -= {message, *overtaken}
        return overtaken

    def missing_since(self, read_at: float) -> float:
        """Returns when the oldest expected message was committed, if it is delayed; 0.0 if it is not.

        read_at: when the topic was last read. A message counts as delayed if it was still missing then,
        `ON_ITS_WAY` seconds or more after its commit.
        """
        if self._expected and read_at - self._expected[0][1] >= ON_ITS_WAY:
            return self._expected[0][1]
        return 0.0

    def age(self, now: float) -> float:
        """Returns the seconds since the commit of the oldest expected message; 0 if none is expected."""
        try:
            return now - self._expected[0][1]
        except IndexError:  # the other thread may take the last one between a check and this access
            return 0.0

    def forget(self) -> None:
        """Expects nothing any more: a new stream has begun."""
        self._expected.clear()
        self._known.clear()


def read(value: bytes | None) -> CanaryMessage | None:
    """Returns the canary message in a record of Debezium's message topic; None for messages of other applications."""
    try:
        message = orjson.loads(value or b"null")["message"]
        if message["prefix"] != CANARY_PREFIX:
            return None
        series, _, number = binascii.unhexlify(message["content"]).decode().rpartition(":")
        return CanaryMessage(series, int(number))
    except (ValueError, KeyError, TypeError):
        return None
