"""Decides when a candidate is proved: everything that committed before its snapshot is in Kafka. Pure.

After the snapshot, a message is committed to PostgreSQL's WAL. Its arrival in Kafka proves nothing about other
partitions: each broker acknowledges its own. The proof is a source offset that Kafka Connect has committed:

    Kafka Connect commits the offset of a record only after the brokers have acknowledged it and all records before it.
    Debezium sends transactions in the order of their commits. A record with `lsn >= L` belongs to a transaction that
    committed at or after L. (A message outside of a transaction is sent when the slot has read the log up to it.)
    So an offset with `lsn >= L` proves that all transactions that committed before L are in Kafka.

`L` is the insert LSN after the snapshot. So every transaction that the snapshot sees committed before `L`. The message
lies after `L`. So the log advances beyond `L` even on an idle database.

Further conditions:

- The message has arrived, and no earlier message of this process is missing (`monitors/canary.py`).
- The offset was read after the message was committed. An older offset may come from another server, whose LSNs are
  higher.
- The offset has no `snapshot` flag. The LSN of a snapshot says nothing about the stream.
- The slot still has the reader that it had in the snapshot. Another reader means that the connector resumed in between,
  and it may have lost rows (`monitors/connector_resumes.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from syncer.freshness.candidates import Candidate
from syncer.freshness.tokens import format_lsn

_PATIENCE = 1000
"""Milliseconds after which a candidate that is not proved is worth an explanation."""


MOST = 1000
"""Candidates that wait at once. If there are more, every other one is dropped: the connector may be down for days."""


class SourceOffset(NamedTuple):
    """A source offset that Kafka Connect has committed for a connector."""

    connector: str
    lsn: int
    """Position in PostgreSQL's WAL, in bytes."""


def read_offset(key: bytes | None, value: bytes | None) -> SourceOffset | None:
    """Returns the offset in a record of Kafka Connect's offset topic.

    Returns None for offsets of other connectors than Debezium's, deleted offsets, and offsets of a snapshot.
    """
    try:
        name, _ = orjson.loads(key or b"null")
        offset = orjson.loads(value or b"null")
        if offset.get("snapshot") or offset.get("snapshot_completed") is False:
            return None
        return SourceOffset(str(name), int(offset["lsn"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Proof:
    """The candidates of one process that are not proved yet. For one thread."""

    def __init__(self) -> None:
        self._waiting: dict[int, Candidate] = {}
        """Number of the message → its candidate, in the order of the numbers."""
        self._arrived = 0
        self._lsn = 0

    def add(self, number: int, candidate: Candidate) -> None:
        """Waits for a candidate. number: of the message that was committed after it. Numbers increase."""
        if not self._waiting:
            self._lsn = 0  # an offset that was read before proves nothing about this server
        if len(self._waiting) >= MOST:
            self._waiting = dict(list(self._waiting.items())[::2])
        self._waiting[number] = candidate

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def arrived(self, number: int) -> None:
        """The message with this number has arrived, and no earlier message is missing."""
        self._arrived = max(self._arrived, number)

    def committed(self, offset: SourceOffset) -> None:
        """Kafka Connect has committed this offset of the connector."""
        self._lsn = max(self._lsn, offset.lsn)

    def clear(self) -> None:
        """Forgets all candidates: changes were lost."""
        self._waiting.clear()
        self._lsn = 0

    def proved(self, reader: object) -> Candidate | None:
        """Returns the last candidate that is proved, and forgets it and all earlier ones. None if there is none.

        reader: the process that reads the slot now, read after the offset.
        """
        done = [number for number, one in self._waiting.items() if number <= self._arrived and one.lsn <= self._lsn]
        found = [self._waiting.pop(number) for number in done]
        return next((one for one in reversed(found) if one.reader is not None and one.reader == reader), None)

    @property
    def ready(self) -> bool:
        """Whether `proved` may return a candidate."""
        return any(number <= self._arrived and one.lsn <= self._lsn for number, one in self._waiting.items())

    @property
    def blocked(self) -> str:
        """Why candidates are not proved although they were taken long ago. Empty if the oldest one is recent."""
        if not self._waiting:
            return ""
        (number, oldest), newest = next(iter(self._waiting.items())), next(reversed(self._waiting.values()))
        if newest.taken_ms - oldest.taken_ms < _PATIENCE:
            return ""
        if oldest.reader is None:
            return "no connector reads the slot: nothing proves that changes are in Kafka"
        if number > self._arrived:
            return "the connector has not delivered a message that was committed to WAL"
        return (
            f"Kafka Connect has not committed a source offset at or after {format_lsn(oldest.lsn)}: a broker may be"
            " slow, or offset.flush.interval.ms is long"
        )
