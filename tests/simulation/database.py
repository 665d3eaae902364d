"""PostgreSQL, as far as the protocol relies on it.

The model has:

- 64-bit transaction ids in order, of which sub-transactions use some;
- transactions that are in progress, then committed in WAL but not visible yet (the window of synchronous
  replication), then visible, or aborted;
- asynchronous commits, which are visible before WAL is flushed;
- snapshots made from the running transactions and the latest completed id, as `GetSnapshotData` does;
- row locks, held until the transaction is visible;
- the insert and flush positions of WAL;
- a crash, which takes back transactions that are not flushed, and assigns their ids again;
- a server that continues from an earlier state on another timeline.

It has no statements, indexes, vacuum, prepared transactions or wrap-around. Some schedules begin with ids near 2^32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from syncer.clock import Identity, Snapshot
from syncer.events import Operation
from tests.simulation.history import History

Image = dict[str, Any]
RowId = tuple[str, int]
"""Table and primary key."""
Rows = dict[RowId, Image]


class Reader(Protocol):
    """An open snapshot: its rows, and the tables that were read in it."""

    content: Rows
    read: set[str]


class Logged(NamedTuple):
    """The change of a row in WAL."""

    table: str
    op: Operation
    before: Image | None
    after: Image | None
    lsn: int


@dataclass(slots=True, eq=False)
class Transaction:
    number: int
    """For the reader of the history: 1, 2, …"""
    xid: int
    last: int
    """The highest id of the transaction and its sub-transactions."""
    asynchronous: bool = False
    changes: list[Logged] = field(default_factory=list)
    writes: dict[RowId, Image | None] = field(default_factory=dict)
    locks: list[RowId] = field(default_factory=list)
    commit_lsn: int = 0
    """The WAL position of its commit; 0 while it is in progress."""

    def __str__(self) -> str:
        return f"T{self.number}"


class Database:
    """One server. xid: its next transaction id. Transactions before it are unknown.

    incarnation: changes with each restart. Connections to an earlier incarnation are lost.
    """

    def __init__(self, history: History, xid: int, rows: Rows) -> None:
        self.history = history
        self.identity = Identity(7, 1)
        self.incarnation = 0
        self.rows, self.initial = rows, dict(rows)
        self.next_xid, self.completed, self.base = xid, xid - 1, xid - 1
        self.writers: dict[RowId, int] = {}
        """The transaction that wrote each row: its `xmin`."""
        self.running: dict[int, Transaction] = {}
        """Transactions that are in progress for snapshots: not ended, or not visible yet. In the order of their ids."""
        self.locked: set[RowId] = set()
        self.inserted = self.flushed = 100
        self.logged: list[tuple[int, int]] = []
        """WAL position and transaction id of every record."""
        self.commits: list[Transaction] = []
        """In WAL order. The connector reads a commit once it is flushed."""
        self.fates: dict[int, str] = {}
        self.seen_xids: set[int] = set()
        self.states: list[tuple[Transaction, Rows]] = []
        """The rows after each transaction became visible, or was recovered. Only kept if `keeps_states`."""
        self.keeps_states = False
        self.absent: dict[str, int] = {}
        """Order → the highest clock of a snapshot in which a plan or a range of a backfill did not find it."""
        self.readers: list[Reader] = []
        """Open snapshots."""
        self.snapshot_at: dict[str, Transaction] = {}
        """The tables that are locked against readers, and the transactions that hold the locks."""

    # -- what clients see ---------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """`GetSnapshotData` (procarray.c): what runs, below the latest completed id + 1."""
        xmax = self.completed + 1
        xip = frozenset([xid for xid in self.running if xid < xmax])
        return Snapshot(min(xip, default=xmax), xmax, xip)

    def status(self, xid: int) -> str:
        """`pg_xact_status`."""
        if xid >= self.next_xid:
            return "in the future"
        return "in progress" if xid in self.running else self.fates.get(xid, "aborted")

    # -- what transactions do -----------------------------------------------------------------------

    def begin(self, subtransactions: int, *, asynchronous: bool) -> Transaction:
        xid = self.next_xid
        if xid in self.seen_xids:
            self.history.seen["a transaction id was assigned twice"] += 1
        self.next_xid += 1 + subtransactions
        self.seen_xids.add(xid)
        transaction = Transaction(xid - self.base, xid, self.next_xid - 1, asynchronous)
        self.running[xid] = transaction
        return transaction

    def write(
        self,
        transaction: Transaction,
        row: RowId,
        op: Operation,
        image: Image | None,
        *,
        lacks_old_row: bool = False,
    ) -> None:
        """Changes a row that is `free`.

        image: None for a delete. lacks_old_row: whether the event lacks the old row.
        """
        before = None if lacks_old_row else self.current(transaction, row)
        self._lock(transaction, row)
        transaction.writes[row] = image
        if op != "t":
            lsn = self._log(transaction.last)
            transaction.changes.append(Logged(row[0], op, before, image, lsn))

    def truncate(self, transaction: Transaction, table: str, ids: range) -> None:
        """Truncates a table. Locks all of its possible rows, and locks the table against readers."""
        self.snapshot_at[table] = transaction
        for id in ids:
            self.write(transaction, (table, id), "t", None)
        transaction.changes.append(Logged(table, "t", None, None, self._log(transaction.last)))

    def rewrite(self, transaction: Transaction, table: str, ids: range) -> None:
        """Rewrites a table like an ALTER TABLE that changes no column in use.

        The table is locked as for a truncate. Its rows stay the same, and there is no event.
        """
        self.snapshot_at[table] = transaction
        for id in ids:
            self._lock(transaction, (table, id))
        self._log(transaction.last)

    def _lock(self, transaction: Transaction, row: RowId) -> None:
        if row not in self.locked:
            self.locked.add(row)
            transaction.locks.append(row)

    def unread(self, table: str) -> bool:
        """Whether no open transaction has read or locked the table."""
        return table not in self.snapshot_at and not any(table in reader.read for reader in self.readers)

    def free(self, transaction: Transaction, row: RowId) -> bool:
        return row not in self.locked or row in transaction.locks

    def current(self, transaction: Transaction, row: RowId) -> Image | None:
        """Returns the latest image of a row, for the transaction that holds its lock."""
        return transaction.writes[row] if row in transaction.writes else self.rows.get(row)

    def commit(self, transaction: Transaction) -> None:
        """Writes the commit to WAL, and flushes it unless it is asynchronous. The transaction is not visible yet."""
        transaction.commit_lsn = self._log(transaction.last)
        self.commits.append(transaction)
        if not transaction.asynchronous:
            self.flushed = self.inserted

    def show(self, transaction: Transaction) -> None:
        """Makes a transaction visible to all later snapshots.

        If the transaction truncated or rewrote a table, an earlier snapshot that has not read the table yet sees it as
        empty (PostgreSQL manual, "Caveats" of concurrency control).
        """
        for table in [table for table, by in self.snapshot_at.items() if by is transaction]:
            for reader in self.readers:
                reader.content = {row: image for row, image in reader.content.items() if row[0] != table}
        self._complete(transaction, "committed")
        self._apply(transaction)
        if self.keeps_states:
            self.states.append((transaction, dict(self.rows)))

    def abort(self, transaction: Transaction) -> None:
        self._log(transaction.last)
        self._complete(transaction, "aborted")

    def flush(self) -> None:
        self.flushed = self.inserted

    def _complete(self, transaction: Transaction, fate: str) -> None:
        del self.running[transaction.xid]
        self.completed = max(self.completed, transaction.last)
        self.fates[transaction.xid] = fate
        self.locked.difference_update(transaction.locks)
        for table in [table for table, by in self.snapshot_at.items() if by is transaction]:
            del self.snapshot_at[table]

    def _log(self, xid: int) -> int:
        self.inserted += 10
        self.logged.append((self.inserted, xid))
        return self.inserted

    # -- what happens to it -------------------------------------------------------------------------

    def crash(self) -> None:
        """Stops at once, and recovers from the flushed WAL only.

        The next transaction id follows the highest one in that WAL (xlogrecovery.c).
        """
        self.history.seen["PostgreSQL crashed"] += 1
        self.logged = [(lsn, xid) for lsn, xid in self.logged if lsn <= self.flushed]
        lost = [t for t in self.commits if t.commit_lsn > self.flushed]
        if any(t.xid not in self.running for t in lost):
            self.history.seen["a crash took back visible transactions"] += 1
        if lost:
            self.history.log("PostgreSQL", "crashes, and takes back %s", ", ".join(map(str, lost)))
        else:
            self.history.log("PostgreSQL", "crashes")
        self._recover([t for t in self.commits if t.commit_lsn <= self.flushed])

    def restore(self, commits: int) -> None:
        """Continues on another timeline with the first commits, as after point-in-time recovery or a failover.

        commits: their number.
        """
        self.identity = Identity(self.identity.system, self.identity.timeline + 1)
        kept = self.commits[:commits]
        end = kept[-1].commit_lsn if kept else 100
        self.logged = [(lsn, xid) for lsn, xid in self.logged if lsn <= end]
        self.flushed = end
        self._recover(kept)
        self.history.log("PostgreSQL", "goes on from an earlier state, on timeline %s", self.identity.timeline)

    def _recover(self, commits: list[Transaction]) -> None:
        self.commits = commits
        self.incarnation += 1
        self.inserted = self.flushed
        self.next_xid = max((xid for _, xid in self.logged), default=self.base) + 1
        self.completed = self.next_xid - 1
        self.running.clear()
        self.locked.clear()
        self.snapshot_at.clear()
        self.readers.clear()
        self.states.clear()
        self.rows, self.writers = dict(self.initial), {}
        self.fates = {}
        for transaction in commits:
            self._apply(transaction)
            self.fates[transaction.xid] = "committed"
            self.states.append((transaction, dict(self.rows)))

    def _apply(self, transaction: Transaction) -> None:
        for row, image in transaction.writes.items():
            if image is None:
                self.rows.pop(row, None)
            else:
                self.rows[row] = image
                self.writers[row] = transaction.xid
