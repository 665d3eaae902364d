"""Runs a COPY, and detects that Kafka Connect has saved a position inside it, or saves one itself.

All rows of a page have the same position in the WAL of PostgreSQL. If Kafka Connect is killed before the whole page is
in Kafka, a connector that resumes after the saved position loses the remaining rows (debezium/dbz#1554).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import urllib3
from confluent_kafka import Consumer, TopicPartition

from devstack import Stack
from syncer.connect.definition import Definition
from tests.harness.database import Database
from tests.harness.waiting import remaining

_TOPIC = "connect-offsets"


def copy(database: Database, statement: str, rows: Iterable[tuple[Any, ...]]) -> int:
    """Runs COPY … FROM STDIN in its own transaction. Returns the transaction id in the form that events use."""
    with database.connect(autocommit=False) as session:
        with session.cursor() as cursor, cursor.copy(statement.encode()) as lines:
            for row in rows:
                lines.write_row(row)
        [[xid]] = session.execute("SELECT pg_current_xact_id()::xid::text::bigint").fetchall()
        session.commit()
    return int(xid)


def pretend_first_row_was_sent(stack: Stack, database: Database, definition: Definition, xid: int) -> None:
    """Saves the position that Kafka Connect has if it is killed after it has sent the first row of a transaction.

    The connector is stopped. xid: of the transaction, which the connector has not read yet.
    """
    peeked = database.query(
        "SELECT lsn - '0/0', data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
        "'proto_version', '1', 'publication_names', %s) WHERE xid::text::bigint = %s",
        [definition.config["slot.name"], definition.config["publication.name"], xid],
    )
    inserted = [int(lsn) for lsn, data in peeked if bytes(data).startswith(b"I")]
    assert inserted.count(inserted[0]) > 1, "the first page has several rows"
    url = f"{stack.connect}/connectors/{definition.name}/offsets"
    [saved] = urllib3.request("GET", url).json()["offsets"]
    at_first_row = {
        **saved["offset"],
        "lsn": inserted[0],
        "lsn_proc": inserted[0],
        "txId": xid,
        "messageType": "INSERT",
        "lsn_events_processed": 1,
    }
    answer = urllib3.request("PATCH", url, json={"offsets": [{**saved, "offset": at_first_row}]})
    assert answer.status == 200, answer.data


class SavedPositions:
    """Reads the positions that Kafka Connect saves for one connector from now on. Close it after use."""

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

    def saved_inside(self, xid: int, seconds: float, *, harmless: bool = False) -> bool:
        """Waits for a saved position inside this transaction. Returns whether there was one.

        xid: the transaction id that `copy` returned.
        It returns False if the connector passed the transaction, or did not reach it within `seconds`.
        harmless: whether a position does not count that lies after one row of a page. Debezium 3.7 may lose the rest of
            the page then.
        """
        for _ in remaining(time.monotonic() + seconds, pause=0.0):
            record = self._consumer.poll(0.5)
            if record is None or record.error() or not record.value():
                continue
            if json.loads(record.key() or b"[null]")[0] != self._connector:
                continue
            position = json.loads(record.value() or b"{}")
            if position.get("txId") == xid and not (harmless and position.get("lsn_events_processed") == 1):
                return True
            if position.get("lsn_commit", 0) and position.get("txId", 0) > xid:
                return False
        return False
