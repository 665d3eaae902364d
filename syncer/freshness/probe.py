"""Takes candidates, and follows their messages and the source offsets through Kafka until the candidates are proved.

The message of a candidate is also the canary (`monitors/canary.py`), which detects that a part of the log was skipped.
The state topic keeps the last message whose commit was acknowledged, and the offsets from which to look for it. The
next process expects that message before any message of its own. It also keeps what was proved last for each reader of
the slot. So if the connector resumes, it is known which rows it may have lost (`monitors/connector_resumes.py`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import psycopg
import structlog

from syncer.checks import Reader
from syncer.checks.connector import CANARY_PREFIX
from syncer.connect.definition import Definition
from syncer.errors import SyncerError
from syncer.events import Position
from syncer.freshness.candidates import Acknowledged, Candidate
from syncer.freshness.proof import Proof, read_offset
from syncer.monitors import canary
from syncer.monitors.canary import Canary, CanaryMessage
from syncer.ports import Follower, Partition, Record
from syncer.postgres import candidate
from syncer.postgres.fingerprint import Fingerprint
from syncer.postgres.wal import emit
from syncer.registry.records import CanaryPosition, Proved, Stream
from syncer.registry.registry import Registry

_STREAM_MAX_AGE = 1.0  # seconds
_LOOK_AGAIN = 5.0
"""Seconds between two looks for the topic of Kafka Connect's offsets. Kafka Connect creates it when it first starts."""

_SAVE_EVERY = 0.9
"""Seconds between two messages that are saved: every message of the usual interval. Callers that wait cause up to 50 a
second."""

_READERS = 8
"""Readers of the slot whose proof is kept. A failing connector has a new reader every few seconds."""

log = structlog.get_logger()


class Probe:
    """Takes and follows the candidates of one process. For one thread, except for `age` and `late`."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        config = registry.config
        self.topic = f"{config.kafka.topic_prefix}.message"
        self._key = CanaryPosition.key(config.kafka.topic_prefix)
        self._canary = Canary(secrets.token_hex(6))
        self._proof = Proof()
        self._connector = self._slot = self._offset_topic = ""
        self._defined: tuple[str, str, str] | None = None
        """The connector, its slot and the topic of its offsets, as defined when it began to follow."""
        self._began_at = 0.0
        self._follower: Follower | None = None
        self._next: dict[Partition, int] = {}
        """The next offset of the message topic."""
        self._stream = Stream()
        self._missing_since = 0.0
        self._unsaved: CanaryPosition | None = None
        """The last message, and the offsets before it."""
        self._saved_at = 0.0
        self._proved: dict[Reader, Proved] = {}
        """What was proved last for each reader, the last one at the end."""

    @property
    def age(self) -> float:
        """Seconds since the commit of the oldest message that has not arrived; 0 if none is missing."""
        return self._canary.age(time.monotonic())

    def late(self) -> float:
        """Returns the seconds for which the connector has not delivered; 0 while messages arrive. For any thread."""
        missing_since = self._missing_since
        return time.monotonic() - missing_since if missing_since else 0.0

    @property
    def waiting(self) -> bool:
        """Whether a candidate is not proved yet, or a message is missing."""
        return self._proof.waiting or self.age > 0

    @property
    def follows_offsets(self) -> bool:
        """Whether the topic of Kafka Connect's offsets can be read. Without it, no candidate is ever proved."""
        return bool(self._offset_topic)

    @property
    def blocked(self) -> str:
        """Why candidates are not proved although they were taken long ago; empty if that is not so."""
        return self._proof.blocked

    def take(
        self,
        connection: psycopg.Connection[Any],
        definition: Definition | None,
        tables: Mapping[str, Fingerprint],
        acknowledged: Mapping[str, Acknowledged],
    ) -> Candidate:
        """Takes a candidate, commits its message and returns it.

        definition: of the connector. tables: read model → the fingerprint of its tables.
        acknowledged: read model → what has been acknowledged until now.
        Raises psycopg.Error or Retry when a server is unavailable.
        """
        self.follow(self.registry.stream(_STREAM_MAX_AGE), definition)
        taken = candidate.take(connection, self._slot, tables)
        message = self._canary.next()
        emit(connection, CANARY_PREFIX, str(message))
        self._canary.committed(message, time.monotonic())
        found = Candidate(
            taken.identity,
            taken.snapshot,
            taken.floor_lsn,
            taken.lsn,
            taken.taken_ms,
            taken.reader,
            self._stream.number,
            taken.tables,
            acknowledged,
        )
        if self.follows_offsets:
            self._proof.add(message.number, found)
        self._unsaved = self._position(message)
        if (now := time.monotonic()) - self._saved_at >= _SAVE_EVERY:
            self.save()
            self._saved_at = now
        return found

    def follow(self, stream: Stream, definition: Definition | None) -> None:
        """Begins to follow, unless it follows this stream and this connector already.

        The definition may change while the process runs, and the topic of the offsets may be created later.
        Raises Retry when Kafka is unavailable.
        """
        redefined = definition is not None and self._names(definition) != self._defined
        missing = definition is not None and not self.follows_offsets
        look_again = missing and time.monotonic() - self._began_at >= _LOOK_AGAIN
        if self._follower is None or stream.number != self._stream.number or redefined or look_again:
            self._begin(stream, definition)

    def poll(self, timeout: float) -> None:
        """Reads the messages and offsets that have arrived. Waits for one for at most `timeout` seconds.

        Raises Retry when Kafka is unavailable, Fatal when it denies access. The next `take` begins again.
        """
        if self._follower is None:
            return
        read_at = time.monotonic()
        try:
            records = self._follower.poll(timeout)
        except SyncerError:
            self.close()
            raise
        for record in records:
            self._read(record)
        self._missing_since = self._canary.missing_since(read_at)

    def proved(self, connection: psycopg.Connection[Any]) -> Candidate | None:
        """Returns the last candidate that is proved now, once. Raises psycopg.Error."""
        if not self._proof.ready:
            return None
        reader = candidate.read_reader(connection, self._slot)
        found = self._proof.proved(reader)
        if found and reader:
            self._remember(Proved(reader, *found.identity, found.snapshot.xmin))
        return found

    def _remember(self, *proved: Proved, earlier: bool = False) -> None:
        """Keeps what was proved last for the last readers. earlier: it was proved before what is already known."""
        new = {one.reader: one for one in proved}
        older, newer = (new, self._proved) if earlier else (self._proved, new)
        both = {reader: one for reader, one in older.items() if reader not in newer} | newer
        self._proved = dict(list(both.items())[-_READERS:])

    def close(self) -> None:
        """Stops following. Candidates that are not proved are dropped; expected messages are still expected."""
        self._proof.clear()
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    def _begin(self, stream: Stream, definition: Definition | None) -> None:
        """Starts to follow: the messages where the last expected one can be, the source offsets from their end."""
        self.close()
        changes = self.registry.changes
        changes.create([self.topic], partitions=1)
        new = stream.number != self._stream.number or not self._next or self._removed()
        start = self._start(stream) if new else self._next
        self._stream, self._next, self._began_at = stream, start, time.monotonic()
        self._defined = self._names(definition) if definition else None
        self._connector, self._slot, topic = self._defined or ("", "", "")
        offsets = changes.ends([topic]) if topic else {}
        self._offset_topic = topic if offsets else ""
        self._follower = changes.follow({**start, **offsets})

    def _names(self, definition: Definition) -> tuple[str, str, str]:
        return definition.name, definition.config.get("slot.name", ""), offset_topic(self.registry, definition)

    def _removed(self) -> bool:
        """Returns whether Kafka no longer has the messages that come next. To read them would fail for ever."""
        begins, ends = self.registry.changes.begins([self.topic]), self.registry.changes.ends([self.topic])
        return any(p in ends and not begins.get(p, 0) <= offset <= ends[p] for p, offset in self._next.items())

    def _start(self, stream: Stream) -> dict[Partition, int]:
        """Returns the offsets from which to read messages, and expects the saved message.

        If Kafka has removed that part of the topic, or has another topic of that name, the message is not expected.
        """
        changes = self.registry.changes
        begins, ends = changes.begins([self.topic]), changes.ends([self.topic])
        saved = self.registry.state.load().get(self._key)
        self._remember(*(saved.proved if saved else ()), earlier=True)
        start = {(self.topic, number): offset for number, offset in saved.start.items()} if saved else {}
        there = all(p in ends and begins[p] <= offset <= ends[p] for p, offset in start.items())
        self._canary.forget()
        self._unsaved, self._missing_since = None, 0.0
        if not saved or saved.stream != stream.number or not there:
            return ends
        ago = max(0.0, time.time() - saved.since_ms / 1000) if saved.since_ms else 0.0
        self._canary.committed(CanaryMessage(saved.series, saved.number), time.monotonic() - ago)
        return {**ends, **start}

    def save(self) -> None:
        """Saves the last message, so that the next process expects it. If this process dies before, none expects it.

        Raises Retry when Kafka is unavailable.
        """
        if self._unsaved is not None:
            self.registry.state.save(self._key, self._unsaved)
            self._unsaved = None

    def _position(self, message: CanaryMessage) -> CanaryPosition:
        """Returns where a message is that was committed just now: at these offsets or after them."""
        start = {number: offset for (_, number), offset in self._next.items()}
        since_ms = round((time.time() - self.age) * 1000)
        proved = tuple(self._proved.values())
        return CanaryPosition(message.series, message.number, self._stream.number, start, since_ms, proved)

    def _read(self, record: Record) -> None:
        if record.position.topic == self.topic:
            self._read_message(record.position, record.value)
        elif (offset := read_offset(record.key, record.value)) and offset.connector == self._connector:
            self._proof.committed(offset)

    def _read_message(self, at: Position, value: bytes | None) -> None:
        self._next[at.topic, at.partition] = at.offset + 1
        if (message := canary.read(value)) is None:
            return
        expected = self._canary.expects(message)
        if lost := self._canary.arrived(message):
            why = f"message {lost[0]} was committed to WAL before {message}, and did not arrive"
            log.error("changes were lost", why=why)
            self._proof.clear()
            self._stream = self.registry.broken(why, self._stream, slot=self._stream.slot)
        elif expected and message.series == self._canary.series:  # an unexpected message says nothing of earlier ones
            self._proof.arrived(message.number)


def offset_topic(registry: Registry, definition: Definition | None) -> str:
    """Returns the topic in which Kafka Connect keeps the connector's offsets.

    A connector with `exactly.once.support` may have a topic of its own.
    """
    own = definition.config.get("offsets.storage.topic", "") if definition else ""
    return own or registry.config.connect.offset_topic
