"""Implements `ports.DeadLetterStore`: a compacted topic of documents and records that were rejected.

Each letter has its own key, and a tombstone under that key resolves the letter:

    document/ID/VERSION              a document, rejected as the snapshot of this version shows it
    record/TOPIC/PARTITION/OFFSET    a record that cannot be decoded; its bytes are the letter's value

A document that is rejected several times has one open letter: that of the last version. It keeps the time of the first
rejection.

**Why the key of a document's letter has the version.** Two writers may resolve the letter of version V:

    a writer that has just written a letter of version V or later for the same document
    a writer that has seen every sink accept the document in a snapshot of version V or later

If the letter is about a partial, the document of the second writer shows this partial in version V or later.

Such a snapshot contains everything that the letter's snapshot contains. So the letter about the last state of a
document stays open while that state is rejected, whatever else is written meanwhile, in any order.

With one key for each document, the letter could be lost. One lane sees an old state accepted and writes a tombstone.
Another lane sees a newer state rejected and writes a letter. If the first lane is slow, or its process was frozen,
its tombstone arrives last. Then compaction removes the letter.

**Crashes** need no other mechanism. Letters and tombstones are durable before the lane commits the offsets that led
to them (`Lane._commit`). After a crash, another lane does the uncommitted work again, and writes the same letters or
newer ones. A letter can stay open too long, if a process ends before it writes the tombstone, or does not know the
letter. Then a replay resolves it. No letter is resolved too early.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from confluent_kafka import Message

from syncer.kafka.admin import MAX_BYTES, KafkaAdmin
from syncer.kafka.producer import DeliveryTracker, KafkaProducer
from syncer.kafka.reader import TopicReader, position_of
from syncer.ports import DeadLetter, Partition, Record, Subject

CONFIG = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    "segment.ms": "3600000",
    "delete.retention.ms": "3600000",
    "max.message.bytes": str(MAX_BYTES),
}
"""Of the topic. It has one partition, so its records are in the order in which they were written."""
_LONGEST_REASON = 4000  # characters
_SINCE = "since"
"""Header of a letter: when its subject was first rejected, in milliseconds since the Unix epoch, as text."""
_LARGEST = MAX_BYTES - (1 << 16)  # bytes of a value; headers and key need the rest


def key_of(subject: Subject, version: int = 0) -> bytes:
    """Returns the key of a letter about this subject.

    version: of the snapshot that showed the document; 0 for a subject that no snapshot has shown.
    """
    name = f"{subject.name}/{version}" if subject.kind == "document" else subject.name
    return f"{subject.kind}/{name}".encode()


def subject_of(key: bytes) -> tuple[Subject, int]:
    """Returns the subject and version that `key_of` was called with. Treats any other key as a document's id."""
    text = key.decode(errors="replace")
    kind, _, rest = text.partition("/")
    id, _, version = rest.rpartition("/")
    if kind == "record":
        return Subject("record", rest), 0
    if kind == "document" and version.isdecimal():
        return Subject("document", id), int(version)
    return Subject("document", text), 0


class KafkaOpenDeadLetters:
    """Implements `ports.OpenDeadLetters`: keeps the keys of the open letters in memory.

    oldest: this process does not resolve letters of an earlier version (0: it resolves all).
    capacity: the largest number of subjects to keep. Further letters are not counted, and only a replay resolves them.
    """

    def __init__(
        self,
        reader: TopicReader,
        producer: KafkaProducer,
        topic: str,
        *,
        oldest: int = 0,
        capacity: int = 100_000,
    ) -> None:
        self._reader, self._producer, self._topic = reader, producer, topic
        self._oldest, self._capacity = oldest, capacity
        self._lock = threading.RLock()
        self._next: dict[Partition, int] = {}
        self._known: dict[Subject, dict[bytes, int]] = {}
        self._since: dict[Subject, int] = {}
        """When each known subject was first rejected, milliseconds since the Unix epoch."""

    def __len__(self) -> int:
        """Returns the number of subjects that have an open letter."""
        return len(self._known)

    def refresh(self, timeout: float = 30.0) -> None:
        """See `ports.OpenDeadLetters.refresh`."""
        for message in self._reader.messages(self._topic, self._next, timeout=timeout):
            if len(self._known) >= self._capacity:
                return
            topic, partition, offset = position_of(message)
            self._next[topic, partition] = offset + 1
            if (key := message.key()) is not None:
                self.fold(key, open=message.value() is not None, since_ms=_since_ms(message))

    def writer(self) -> KafkaDeadLetters:
        """Returns the `ports.DeadLetters` of one lane."""
        return KafkaDeadLetters(DeliveryTracker(self._producer), self._topic, self)

    def since(self, subject: Subject) -> int:
        """Returns when the subject was first rejected, or now, in milliseconds since the Unix epoch."""
        return self._since.get(subject) or time.time_ns() // 1_000_000

    def fold(self, key: bytes, *, open: bool, since_ms: int = 0) -> list[bytes]:
        """Applies one record of the topic. Returns the keys of older letters about the same subject.

        open: the record is a letter. Otherwise it is a tombstone.
        since_ms: when the subject of a letter was first rejected.
        """
        subject, version = subject_of(key)
        with self._lock:
            keys = self._known.setdefault(subject, {})
            if open:
                keys[key] = version
                self._since.setdefault(subject, since_ms)
                return [k for k, v in keys.items() if v < version]
            keys.pop(key, None)
            if not keys:
                del self._known[subject]
                self._since.pop(subject, None)
            return []

    def resolved_by(self, versions: Iterable[tuple[str, int]]) -> Iterator[bytes]:
        """Returns the keys of the letters that are resolved once every sink accepts these documents.

        versions: each id with the version that was accepted.
        """
        if not self._known:
            return
        for id, version in versions:
            for key, rejected in list(self._known.get(Subject("document", id), {}).items()):
                if self._oldest <= rejected <= version:
                    yield key


class KafkaDeadLetters:
    """Implements `ports.DeadLetters` for one lane."""

    def __init__(self, tracker: DeliveryTracker, topic: str, open_letters: KafkaOpenDeadLetters) -> None:
        self._tracker, self._topic, self._open = tracker, topic, open_letters

    def document(self, id: str, version: int, reason: str) -> None:
        subject = Subject("document", id)
        for older in self._put_letter(
            subject, key_of(subject, version), b"", {"reason": reason[:_LONGEST_REASON]}
        ):  # after the new letter, so that one of both always exists
            self._resolve(older)

    def record(self, record: Record, reason: str) -> None:
        topic, partition, offset = record.position
        value = record.value or b""
        headers = {"reason": reason[:_LONGEST_REASON]}
        if len(value) > _LARGEST:
            headers["cut"] = f"the first of {len(value)} bytes"
            value = value[:_LARGEST]
        subject = Subject("record", f"{topic}/{partition}/{offset}")
        self._put_letter(subject, key_of(subject), value, headers)

    def accepted(self, ids: Iterable[str], version: int) -> None:
        self.accepted_partials((id, version) for id in ids)

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        for key in self._open.resolved_by(versions):
            self._resolve(key)

    def _put_letter(self, subject: Subject, key: bytes, value: bytes, headers: Mapping[str, str]) -> list[bytes]:
        """Returns the keys of older letters about the subject."""
        since_ms = self._open.since(subject)
        self._put(key, value, {**headers, _SINCE: str(since_ms)})
        return self._open.fold(key, open=True, since_ms=since_ms)

    def _resolve(self, key: bytes) -> None:
        self._put(key, None, {})
        self._open.fold(key, open=False)

    def flush(self) -> None:
        self._tracker.flush()

    def _put(self, key: bytes, value: bytes | None, headers: Mapping[str, str]) -> None:
        self._tracker.put(self._topic, key, value, headers)


class KafkaDeadLetterStore:
    """Implements `ports.DeadLetterStore`."""

    def __init__(self, admin: KafkaAdmin, reader: TopicReader, producer: KafkaProducer, topic: str) -> None:
        self._admin, self._reader, self._producer, self._topic = admin, reader, producer, topic

    def create(self) -> None:
        made = self._admin.create([self._topic], CONFIG, partitions=1)
        if not made and self._admin.config(self._topic, "cleanup.policy") != CONFIG["cleanup.policy"]:
            self._admin.configure(self._topic, CONFIG)

    def end(self) -> int:
        [end] = self._admin.ends([self._topic]).values()
        return end

    def read(self) -> list[DeadLetter]:
        letters: dict[bytes, DeadLetter] = {}
        for message in self._reader.messages(self._topic):
            if (key := message.key()) is None:
                continue
            letters.pop(key, None)
            if message.value() is not None:
                letters[key] = _letter(key, message)
        latest: dict[Subject, DeadLetter] = {}
        for key, letter in letters.items():
            other = latest.get(letter.subject, letter)
            keys = () if other is letter else other.keys
            newest = letter if letter.version >= other.version else other
            latest[letter.subject] = replace(newest, since_ms=min(letter.since_ms, other.since_ms), keys=(*keys, key))
        return sorted(latest.values(), key=lambda letter: letter.position.offset)

    def content(self, letter: DeadLetter) -> bytes | None:
        topic, partition, offset = letter.position
        found = next(iter(self._reader.first({(topic, partition): offset})[topic, partition]), None)
        return found.value if found and found.position == letter.position else None

    def resolve(self, letters: Iterable[DeadLetter]) -> None:
        tracker = DeliveryTracker(self._producer)
        for letter in letters:
            for key in letter.keys:
                tracker.put(self._topic, key, None)
        tracker.flush()

    def open(self, *, oldest: int = 0) -> KafkaOpenDeadLetters:
        return KafkaOpenDeadLetters(self._reader, self._producer, self._topic, oldest=oldest)


def _letter(key: bytes, message: Message) -> DeadLetter:
    subject, version = subject_of(key)
    headers = _headers(message)
    reason, cut = (headers.get(name, b"").decode(errors="replace") for name in ("reason", "cut"))
    return DeadLetter(subject, reason, _since_ms(message), version, cut, position_of(message), (key,))


def _since_ms(message: Message) -> int:
    """Returns when the subject was first rejected. A letter of an earlier version of the syncer has only its time."""
    since = _headers(message).get(_SINCE, b"").decode(errors="replace")
    return int(since) if since.isdecimal() else int(message.timestamp()[1])


def _headers(message: Message) -> dict[str, bytes]:
    return dict(message.headers() or ())  # type: ignore[arg-type]
