"""A model of Delta's log, and of what delta-rs does with it. `test_delta.py` checks that the real one behaves so.

`TrustingAppender` is a weakened rule, for the tests that have to catch it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from syncer.errors import Retry
from syncer.export.appender import Appender
from syncer.export.pending import Pending

Row = tuple[int, int]
"""Partition and offset of a record."""


@dataclass
class Log:
    """The commits of one table: the rows and the transactions of each."""

    commits: list[tuple[list[Row], dict[int, int]]] = field(default_factory=list)

    def rows(self) -> list[Row]:
        return [row for rows, _ in self.commits for row in rows]


@dataclass
class ModelTable:
    """Implements `appender.Table` over a log. Each process has one of its own."""

    log: Log
    version: int = 0
    unknown: bool = False
    """Whether the answer to the next append is lost, although it succeeds."""

    def load(self) -> int:
        self.version = len(self.log.commits)
        return self.version

    def next_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for _, transactions in self.log.commits[: self.version]:
            found |= {number: at for number, at in transactions.items() if number in partitions}
        return found

    def append(self, records: Pending, next_offsets: Mapping[int, int]) -> bool:
        """Compares no transactions, as delta-rs does."""
        if self.version != len(self.log.commits):
            self.version = len(self.log.commits)
            return False
        self.log.commits.append(([(one.partition, one.offset) for one in records], dict(next_offsets)))
        self.version += 1
        if self.unknown:
            self.unknown = False
            raise Retry("the answer was lost")
        return True


class TrustingAppender(Appender):
    """Relies on Delta to refuse a transaction that it has already, and does not read it."""

    def missing(self, pending: Pending) -> int:
        self._table.load()
        return len(pending)
