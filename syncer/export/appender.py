"""Appends each record of a topic to a table exactly once.

The log of a Delta table is a sequence of commits, and each version of it can be created only once. A commit has the
rows and, for each partition, a *transaction*: the name of the partition and the next offset to export. Both become
visible together. Delta stores transactions, but no writer enforces them: delta-rs accepts an append whose transaction
is lower than the stored one. Nor does it always refuse a commit that is based on an old version: it tries again on top
of the newer one, if the two do not conflict. So three rules make the export exact:

1. Before each append, the newest version of the log is loaded, and the transactions are read from it. Records that they
   cover are left out.
2. The append creates exactly the version after the loaded one, or it fails (`max_commit_retries=0`). So no other commit
   can be between the check and the append. A process that was frozen in between fails here.
3. After a failure, or an unknown result, rule 1 begins again.

No consumer group is involved. A group decides who reads, but a frozen member does not know that it lost its partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from syncer.export.pending import Pending


class Table(Protocol):
    """A table with a log of commits, as one process sees it: the version that it loaded last. For one thread."""

    def load(self) -> int:
        """Loads the newest version of the log, and returns its number. Raises Retry if the store is unreachable."""
        ...

    def next_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """Returns the next offset to export, as the loaded version has it. Partitions without one are left out."""
        ...

    def append(self, records: Pending, next_offsets: Mapping[int, int]) -> bool:
        """Appends the records and stores the offsets, in the version after the loaded one.

        Returns False if this version exists already; then nothing was appended. Raises Retry if the result is unknown.
        """
        ...


class Rewound(Exception):
    """The table has fewer records than before, for example because it was replaced by a copy."""


class Appender:
    """Appends pending records. conflict: called after each append that another commit preceded."""

    def __init__(self, table: Table, conflict: Callable[[], None] = lambda: None) -> None:
        self._table, self._conflict = table, conflict

    def append(self, pending: Pending) -> int:
        """Appends all pending records that the table does not have. Returns their number. `pending` is empty then.

        Repeats after a conflict. Each one means that another process committed, so one of them always proceeds.
        Raises Rewound if records between the table and `pending` are missing.
        """
        while (found := self.missing(pending)) and not self._table.append(pending, pending.ends()):
            self._conflict()
        pending.skip(pending.ends())
        return found

    def missing(self, pending: Pending) -> int:
        """Loads the table, and drops the pending records that it has. Returns how many are left."""
        self._table.load()
        stored = self._table.next_offsets(pending.begins)
        for number, begin in pending.begins.items():
            found = stored.get(number, 0)
            if found < begin:
                raise Rewound(f"partition {number}: the table ends at offset {found}, it had ended at {begin}")
        pending.skip(stored)
        return len(pending)
