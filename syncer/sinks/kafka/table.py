"""The last record of every id, for `verify`, `repair` and sweeps.

A topic cannot be read by key. The first call reads the whole topic into a temporary database on disk. Later calls read
only the records that were added. So a comparison of a read model costs one read of its topic, and disk space for all of
its documents. Writing does not use the table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from syncer.sinks.kafka.records import Written
from syncer.sinks.kafka.tail import TopicTail

_CREATE = """
CREATE TABLE records (id TEXT PRIMARY KEY, part INTEGER, place INTEGER, highest INTEGER, body BLOB) WITHOUT ROWID"""
_ADD = """
INSERT INTO records VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
part = excluded.part, place = excluded.place, highest = max(highest, excluded.highest), body = excluded.body"""
_SOME = "SELECT id, {} FROM records WHERE {} AND id IN (SELECT value FROM json_each(?))"
_AT_ONCE = 5000  # records
_READ_TIMEOUT = 3600.0
"""Seconds for the whole topic, as for the plan of a backfill."""


class TopicTable:
    """A copy of the topic. For one thread at a time. begins: the first offset of each partition."""

    def __init__(self, settings: Mapping[str, Any], topic: str, begins: Mapping[int, int]) -> None:
        self._tail = TopicTail(settings, topic, begins)
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a temporary file
        self._db.execute(_CREATE)

    def update(self, ends: Mapping[int, int]) -> None:
        """Adds the records up to these ends. Raises Retry if they cannot be read."""
        found = self._tail.read(ends, _READ_TIMEOUT)
        while some := list(islice(found, _AT_ONCE)):
            self._db.execute("BEGIN")
            self._db.executemany(_ADD, map(_row, some))
            self._db.execute("COMMIT")

    def ids(self, since: Mapping[int, int]) -> Iterator[str]:
        """Yields the ids of documents. since: only of those whose last record is at one of these offsets or later."""
        rows = self._db.execute("SELECT id, part, place FROM records WHERE body IS NOT NULL")
        return iter([id for id, part, place in rows if place >= since.get(part, 0)])

    def documents(self, ids: Sequence[str]) -> dict[str, bytes]:
        return self._some("body", "body IS NOT NULL", ids)

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Returns the highest versions, also of deletes."""
        return self._some("highest", "highest > 0", ids)

    def _some(self, column: str, condition: str, ids: Sequence[str]) -> dict[str, Any]:
        sql = _SOME.format(column, condition)
        return dict(self._db.execute(sql, [orjson.dumps(list(ids)).decode()]))

    def count(self) -> int:
        [(found,)] = self._db.execute("SELECT count(body) FROM records")
        return int(found)

    def close(self) -> None:
        self._tail.close()
        self._db.close()


def _row(record: Written) -> tuple[str, int, int, int, bytes | None]:
    return record.id, record.position.partition, record.position.offset, record.version, record.body
