"""Dead letters: what can never be accepted, in a compacted topic of its read model, until it is settled.

Each letter has a key of its own, and a tombstone under that key settles it:

    document/ID/VERSION              a document that was refused as the snapshot of this version shows it
    record/TOPIC/PARTITION/OFFSET    a record that cannot be read; its bytes are the letter's value

What is refused again and again is told once: of several letters about one document, the last version stands.

**Why a key has the version.** A document's letter is settled only by who knows better: who wrote a letter of
the same or a later version, or has seen every sink accept the document in a snapshot of such a version. That
snapshot sees all that the letter's saw. So a letter that tells of the last state of a document is never
settled while that state is refused, whoever writes meanwhile, in whatever order. With one key a document it
could be: a lane (or a process that was frozen and wakes) settles what it saw accepted, while another one is
refused something newer; its tombstone comes last, and compaction takes the letter away.

**Crashes** need nothing more. Letters and tombstones are durable before the offsets of what they answer are
committed (`Lane._commit`), so what was under way is done again, and says the same or something newer. A
letter can stand too long, if a process ends before its tombstone, or does not know of the letter; then a
replay settles it. None stands too short.
"""

from __future__ import annotations

import threading
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
"""Of the topic, which has one partition: the order of its records is that in which they were written."""
_LONGEST_REASON = 4000
_LARGEST = MAX_BYTES - (1 << 16)  # headers and key need room


def key_of(subject: Subject, version: int = 0) -> bytes:
    """Returns the key of a letter about this subject.

    version: of the snapshot that showed the document; 0 for a subject that no snapshot has shown.
    """
    name = f"{subject.name}/{version}" if subject.kind == "document" else subject.name
    return f"{subject.kind}/{name}".encode()


def subject_of(key: bytes) -> tuple[Subject, int]:
    """What `key_of` made the key of, and the version. Any other key is taken for a document's id."""
    text = key.decode(errors="replace")
    kind, _, rest = text.partition("/")
    id, _, version = rest.rpartition("/")
    if kind == "record":
        return Subject("record", rest), 0
    if kind == "document" and version.isdecimal():
        return Subject("document", id), int(version)
    return Subject("document", text), 0


class KafkaOpenDeadLetters:
    """Which letters of a read model stand, by their keys. Shared by the threads of one process.

    oldest: letters of an earlier version are not for this process to settle (0: all are).
    capacity: subjects that are known at most. Where more stand, the others are not counted, and a replay
    alone settles them.
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

    def __len__(self) -> int:
        """Subjects that are refused."""
        return len(self._known)

    def refresh(self, timeout: float = 30.0) -> None:
        """Learn what others have written since the last time; for one thread. Raises Retry if Kafka does not
        give it in time; then the next call goes on from there."""
        for message in self._reader.messages(self._topic, self._next, timeout=timeout):
            if len(self._known) >= self._capacity:
                return
            topic, partition, offset = position_of(message)
            self._next[topic, partition] = offset + 1
            if (key := message.key()) is not None:
                self.fold(key, stands=message.value() is not None)

    def writer(self) -> KafkaDeadLetters:
        """Returns the `ports.DeadLetters` of one lane."""
        return KafkaDeadLetters(DeliveryTracker(self._producer), self._topic, self)

    def fold(self, key: bytes, *, stands: bool) -> list[bytes]:
        """A letter, or the tombstone of one. Returns the keys of the subject's letters that are older."""
        subject, version = subject_of(key)
        with self._lock:
            keys = self._known.setdefault(subject, {})
            if stands:
                keys[key] = version
                return [k for k, v in keys.items() if v < version]
            keys.pop(key, None)
            if not keys:
                del self._known[subject]
            return []

    def settled_by(self, ids: Iterable[str], version: int) -> Iterator[bytes]:
        """The keys of letters that are answered when these documents are accepted as of this version."""
        if not self._known:
            return
        for id in ids:
            for key, refused in list(self._known.get(Subject("document", id), {}).items()):
                if self._oldest <= refused <= version:
                    yield key


class KafkaDeadLetters:
    """`ports.DeadLetters` of one lane, which flushes what it wrote."""

    def __init__(self, outbox: DeliveryTracker, topic: str, standing: KafkaOpenDeadLetters) -> None:
        self._outbox, self._topic, self._standing = outbox, topic, standing

    def document(self, id: str, version: int, reason: str) -> None:
        key = key_of(Subject("document", id), version)
        self._put(key, b"", {"reason": reason[:_LONGEST_REASON]})
        for older in self._standing.fold(key, stands=True):  # after the letter, so that one of both is there
            self._settle(older)

    def record(self, record: Record, reason: str) -> None:
        topic, partition, offset = record.position
        value = record.value or b""
        headers = {"reason": reason[:_LONGEST_REASON]}
        if len(value) > _LARGEST:
            headers["cut"] = f"the first of {len(value)} bytes"
            value = value[:_LARGEST]
        key = key_of(Subject("record", f"{topic}/{partition}/{offset}"))
        self._put(key, value, headers)
        self._standing.fold(key, stands=True)

    def accepted(self, ids: Iterable[str], version: int) -> None:
        for key in self._standing.settled_by(ids, version):
            self._settle(key)

    def _settle(self, key: bytes) -> None:
        self._put(key, None, {})
        self._standing.fold(key, stands=False)

    def flush(self) -> None:
        self._outbox.flush()

    def _put(self, key: bytes, value: bytes | None, headers: Mapping[str, str]) -> None:
        self._outbox.put(self._topic, key, value, headers)


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
            latest[letter.subject] = replace(newest, keys=(*keys, key))
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
    headers: dict[str, bytes] = dict(message.headers() or ())  # type: ignore[arg-type]
    reason, cut = (headers.get(name, b"").decode(errors="replace") for name in ("reason", "cut"))
    return DeadLetter(subject, reason, message.timestamp()[1], version, cut, position_of(message), (key,))
