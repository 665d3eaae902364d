"""A COPY, and the moment in which Kafka Connect has saved a position amid it.

The rows of a page have one position in PostgreSQL's log. If Connect dies then, before the rest of the page is
in Kafka, a connector that resumes after the saved position loses the rest (debezium/dbz#1554).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from devstack import Stack
from tests.harness.database import Database

_TOPIC = "connect-offsets"


def copy(database: Database, statement: str, rows: Iterable[tuple[Any, ...]]) -> int:
    """A COPY … FROM STDIN in a transaction of its own; returns the transaction's id, as events have it."""
    with database.connect(autocommit=False) as session:
        with session.cursor() as cursor, cursor.copy(statement.encode()) as lines:
            for row in rows:
                lines.write_row(row)
        [[xid]] = session.execute("SELECT pg_current_xact_id()::xid::text::bigint").fetchall()
        session.commit()
    return int(xid)


class SavedPositions:
    """Those that Connect saves of one connector, from now on. Close it."""

    def __init__(self, stack: Stack, connector: str) -> None:
        self._connector = connector
        self._consumer = Consumer(
            {"bootstrap.servers": stack.kafka, "group.id": connector, "enable.auto.commit": False}
        )
        partition = TopicPartition(_TOPIC, 0)
        _, end = self._consumer.get_watermark_offsets(partition, timeout=10, cached=False)
        self._consumer.assign([TopicPartition(_TOPIC, 0, end)])

    def close(self) -> None:
        self._consumer.close()

    def saved_inside(self, xid: int, seconds: float) -> bool:
        """Wait for a position inside of this transaction. False if there was none: the connector went past
        it, or did not come to it in the given time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = self._consumer.poll(0.5)
            if record is None or record.error() or not record.value():
                continue
            if json.loads(record.key() or b"[null]")[0] != self._connector:
                continue
            position = json.loads(record.value() or b"{}")
            if position.get("txId") == xid:
                return True
            if position.get("lsn_commit", 0) and position.get("txId", 0) > xid:
                return False
        return False
