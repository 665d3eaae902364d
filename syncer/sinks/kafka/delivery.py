"""Sends records and waits until the brokers have answered for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from syncer.document import Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.kafka.errors import classify_error
from syncer.sinks.kafka.records import Headers
from syncer.sinks.kafka.topic import STAMP_TOLERANCE

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE)
_HINTS = {
    KafkaError.INVALID_TIMESTAMP: f"the clock of this host has to agree with the brokers to {STAMP_TOLERANCE:.0f} s",
    KafkaError.NOT_ENOUGH_REPLICAS: "a broker is down, see min.insync.replicas of the topic; nothing is lost meanwhile",
}


HeadersOf = Callable[[str], Headers]


class _Call(NamedTuple):
    """One call's records. A report belongs to the call that sent its record: another call may send the same id."""

    open: dict[str, bytes | None]
    """The records without an answer."""
    failed: dict[str, KafkaError]

    def answered(self, error: KafkaError | None, message: Message) -> None:
        key: Any = message.key()
        id = key.decode()
        if error is not None:
            self.failed[id] = error
        else:
            self.open.pop(id, None)


class Delivery:
    """A producer for one topic. For one thread at a time. where: the sink's name, for errors."""

    def __init__(self, settings: Mapping[str, Any], topic: str, where: str) -> None:
        self._topic, self._where = topic, where
        self._settings = {
            "compression.type": "zstd",
            "linger.ms": 5,
            "message.max.bytes": 64 << 20,  # the topic's own limit counts: the sink checks it before
            **settings,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # that of Kafka's Java clients
            "delivery.timeout.ms": int(STAMP_TOLERANCE * 1000),
        }
        self._producer: Producer | None = None

    def __call__(self, wanted: Mapping[str, bytes | None], headers: HeadersOf, timeout: float, out: Outcome) -> None:
        """Sends the documents by id, and counts each of them in `out`. None is a delete. headers: by id.

        A record that has no answer after `timeout` seconds is to be retried. It may still arrive. Its late report does
        not count for later calls.
        Raises Fatal if the brokers deny access.
        """
        if not wanted:
            return
        deadline = time.monotonic() + timeout
        call = _Call(dict(wanted), {})
        producer, stamp = self._connected(), time.time_ns() // 1_000_000
        for id, body in wanted.items():
            try:
                self._send(producer, call, id, body, headers(id), stamp, deadline)
            except KafkaException as error:
                call.failed[id] = error.args[0]
        if call.open.keys() - call.failed.keys():
            producer.flush(max(0.0, deadline - time.monotonic()))
        self._count(wanted, call, timeout, out)

    def _send(
        self,
        producer: Producer,
        call: _Call,
        id: str,
        body: bytes | None,
        headers: Headers,
        stamp: int,
        deadline: float,
    ) -> None:
        fields: Any = headers
        while time.monotonic() < deadline:
            try:
                producer.produce(
                    self._topic, body, id.encode(), on_delivery=call.answered, timestamp=stamp, headers=fields
                )
            except BufferError:
                producer.poll(0.1)
            else:
                producer.poll(0)
                return

    def _count(self, wanted: Mapping[str, bytes | None], call: _Call, timeout: float, out: Outcome) -> None:
        for id, body in wanted.items():
            if id not in call.open:
                out.written += body is not None
                out.deleted += body is None
        for id in call.open:
            error = call.failed.get(id)
            if error is None:
                out.retry.append(id)
                out.retry_reason = f"{self._where}: no answer in {timeout:.0f} s"
            elif error.code() in _TOO_LARGE:
                out.rejected.append(Rejection(id, error.str(), "too large"))
            else:
                self._retry(id, error, out)
        if any(error.fatal() or error.code() == KafkaError._FATAL for error in call.failed.values()):
            self._producer = None  # such a client rejects every record from now on

    def _retry(self, id: str, error: KafkaError, out: Outcome) -> None:
        found = classify_error("cannot write", KafkaException(error))
        if isinstance(found, Fatal):
            raise Fatal(found.what, where=self._where, why=found.why, hint=found.hint)
        hint = _HINTS.get(error.code(), found.hint)
        out.retry.append(id)
        out.retry_reason = str(Retry(found.what, where=self._where, why=found.why, hint=hint))

    def _connected(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(self._settings)
        return self._producer

    def close(self) -> None:
        """Drops the records without an answer. Their documents were returned in `retry`."""
        self._producer = None
