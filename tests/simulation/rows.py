"""`ports.Rows` over the simulated database. Does the work of `postgres/snapshot_reader.py` without SQL.

A view copies the visible rows when its snapshot is taken. So its content does not depend on the snapshot's transaction
ids, and the schedules compare the content with the ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from syncer.declaration.compile import Lookup
from syncer.document import Row
from syncer.errors import Retry
from syncer.events import Key, TableName
from syncer.ports import Head, View
from tests.simulation.application import TABLES, Sizes, document
from tests.simulation.database import Database, Rows
from tests.simulation.history import History
from tests.simulation.scheduler import Scheduler


class SimulatedRows:
    """One connection. A crash of the server closes it."""

    def __init__(self, database: Database, scheduler: Scheduler, history: History, sizes: Sizes, who: str) -> None:
        self.database, self.scheduler, self.history, self.sizes = database, scheduler, history, sizes
        self.who = who
        self.incarnation: int | None = None

    def view(self, *, root_only: bool = False, wait: Callable[[float], None] | None = None) -> SimulatedView:
        """Opens a view. Ignores `wait`: an actor that waits for a lock gives its turn to the others."""
        return SimulatedView(self, ("orders",) if root_only else TABLES)

    def alive(self) -> None:
        """Raises Retry if the connection is lost."""
        if self.incarnation != self.database.incarnation:
            self.incarnation = None
            raise Retry("cannot read from PostgreSQL", why="server closed the connection unexpectedly")

    def flushed(self, lsn: int) -> bool:
        self.scheduler.pause()
        self.alive()
        if lsn <= self.database.flushed:
            return True
        self.history.seen["a snapshot waited for the WAL flush"] += 1
        return False

    def flush(self) -> None:
        """Commits a transaction of its own, which flushes WAL. It may come too late."""
        self.scheduler.pause()
        if self.incarnation == self.database.incarnation:
            self.database.commit(self.database.begin(0, asynchronous=False))
            self.database.show(self.database.commits[-1])
            self.history.log(self.who, "commits a message to flush WAL")

    def statuses(self, xids: Collection[int]) -> dict[int, str]:
        return {xid: self.database.status(xid) for xid in xids}

    def close(self) -> None:
        self.incarnation = None


class SimulatedView:
    """`ports.View`, and the context manager that opens it."""

    head: Head

    def __init__(self, rows: SimulatedRows, tables: Sequence[str]) -> None:
        self._rows, self._tables = rows, tables
        self._pause = rows.scheduler.pause

        self.content: Rows = {}
        self.read: set[str] = set()

    def __enter__(self) -> View:
        rows, database = self._rows, self._rows.database
        self._pause()
        if rows.incarnation is None:
            rows.incarnation = database.incarnation
        rows.alive()
        database.readers.append(self)
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def _begin(self) -> None:
        """Takes the locks before the snapshot, as `postgres/snapshot_reader.py` does."""
        self._read(*self._tables)
        self._take_snapshot()

    def _take_snapshot(self) -> None:
        rows, database = self._rows, self._rows.database
        snapshot, self.content, identity = database.snapshot(), dict(database.rows), database.identity
        self._pause()  # the WAL position is read after the snapshot was taken
        rows.alive()
        self._clock = snapshot.clock - database.base  # for the history
        self.head = Head(snapshot, identity, database.inserted)

    def _end(self) -> None:
        if self in self._rows.database.readers:
            self._rows.database.readers.remove(self)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._pause()
        self._end()
        if kind is not None:
            self._rows.close()
        else:
            self._rows.alive()

    def trees(self, tables: Collection[TableName]) -> dict[TableName, TableName]:
        """Never called: no other table shares a topic here."""
        raise AssertionError(f"unexpected: {tables}")

    def _read(self, *tables: str) -> None:
        """Locks tables as a reader does. Waits while one of them is being rewritten or truncated."""
        self._pause()
        taken = self._rows.database.snapshot_at
        if taken and not self.read.issuperset(tables):
            self._rows.scheduler.until(lambda: not any(table in taken for table in tables))
        self._rows.alive()
        self.read.update(tables)

    def look_up(self, lookup: Lookup, values: Collection[Key]) -> Iterator[Key]:
        """Looks up the orders of products through items. It is the only look-up of the declaration that needs rows."""
        self._read("items")
        products = {int(value) for (value,) in values}
        orders = {
            row["order_id"]
            for (table, _), row in self.content.items()
            if table == "items" and row["product_id"] in products
        }
        history = self._rows.history
        history.log(
            self._rows.who,
            "looks up products %s at clock %s: orders %s",
            products,
            self._clock,
            orders or "none",
        )
        if orders:
            history.seen["roots that a look-up found"] += 1
        for order in sorted(orders):
            yield (str(order),)

    def render(self, keys: Sequence[Key], most: int = 0) -> list[Row]:
        self._read("orders", "items", "products")
        if self.head.identity.timeline > 1:
            self._rows.database.history.seen["rendered from another history"] += 1
        self._rows.history.log(
            self._rows.who, "renders orders %s at clock %s", ", ".join(k for (k,) in keys), self._clock
        )
        return [self._row(id) for (id,) in keys]

    def render_range(self, low: Key | None, high: Key, most: int = 0) -> list[Row]:
        return self.render(self.keys_in_range(low, high))

    def keys_in_range(self, low: Key | None, high: Key) -> list[Key]:
        self._read("orders")
        first = int(low[0]) if low else 0
        return [key for key in self.first_keys(99) if first < int(key[0]) <= int(high[0])]

    def first_keys(self, limit: int) -> list[Key]:
        keys: list[Key] = [(str(id),) for id in range(1, self._rows.sizes.orders + 1) if ("orders", id) in self.content]
        return keys[:limit]

    def boundaries(self, size: int) -> Iterator[Key]:
        self._read("orders")
        keys = self.first_keys(99)
        for at, key in enumerate(keys, 1):
            if at % size == 0 or at == len(keys):
                yield key

    def _row(self, id: str) -> Row:
        found = id if ("orders", int(id)) in self.content else None
        return Row(id, found, document(self.content, int(id), self._rows.sizes))
