"""`ports.Rows` over the simulated database. Does the work of `postgres/snapshot_reader.py` without SQL.

A view copies the visible rows when its snapshot is taken. So its content does not depend on the snapshot's transaction
ids, and the schedules compare the content with the ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import cast

from syncer.declaration.compile import Lookup, TableUse
from syncer.document import Row, document_id
from syncer.errors import Retry
from syncer.events import Key, TableName, Values
from syncer.ports import Head, Pages, View
from tests.simulation.application import TABLES
from tests.simulation.database import Database, Rows
from tests.simulation.history import History
from tests.simulation.read_models import ReadModel, order_of
from tests.simulation.scheduler import Scheduler


class SimulatedRows:
    """One connection. A crash of the server closes it."""

    def __init__(self, database: Database, scheduler: Scheduler, history: History, model: ReadModel, who: str) -> None:
        self.database, self.scheduler, self.history, self.model = database, scheduler, history, model
        self.who = who
        self.incarnation: int | None = None

    def view(self, *, root_only: bool = False, wait: Callable[[float], None] | None = None) -> SimulatedView:
        """Opens a view. Ignores `wait`: an actor that waits for a lock gives its turn to the others."""
        return SimulatedView(self, self.model.root_tables if root_only else TABLES)

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
        self._writers = dict(database.writers)
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

    def look_up(self, lookup: Lookup, values: Collection[Values]) -> Iterator[Key]:
        if lookup.sql is None:
            yield from cast(Collection[Key], values)  # a key has no NULL
            return
        self._read("items")
        found = self._rows.model.look_up(self.content, lookup, values)
        history, shown = self._rows.history, sorted(found, key=order_of)
        history.log(
            self._rows.who,
            "looks up %s at clock %s: %s",
            [",".join(map(str, one)) for one in values],
            self._clock,
            ", ".join(map(document_id, shown)) or "none",
        )
        if found:
            history.seen["roots that a look-up found"] += 1
        yield from shown

    def render(self, keys: Sequence[Key], max_bytes: int = 0) -> list[Row]:
        self._read("orders", "items", "products")
        if self.head.identity.timeline > 1:
            self._rows.database.history.seen["rendered from another history"] += 1
        self._rows.history.log(self._rows.who, "renders %s at clock %s", ", ".join(map(document_id, keys)), self._clock)
        return [self._rows.model.render(self.content, key) for key in keys]

    def render_range(self, low: Key | None, high: Key, max_bytes: int = 0) -> list[Row]:
        return self.render(self.keys_in_range(low, high))

    def keys_in_range(self, low: Key | None, high: Key) -> list[Key]:
        self._read(*self._rows.model.root_tables)
        model = self._rows.model

        def within(key: Key) -> bool:
            return order_of(key) <= order_of(high) and (low is None or order_of(low) < order_of(key))

        self._note_absent(filter(within, model.possible_keys()))
        return [key for key in model.keys(self.content) if within(key)]

    def first_keys(self, limit: int) -> list[Key]:
        return self._rows.model.keys(self.content)[:limit]

    def boundaries(self, size: int) -> Iterator[Key]:
        self._read(*self._rows.model.root_tables)
        self._note_absent(self._rows.model.possible_keys())
        keys = self.first_keys(99)
        for at, key in enumerate(keys, 1):
            if at % size == 0 or at == len(keys):
                yield key

    def pages(self, table: TableName) -> Pages:
        """A page has one row. Its number is the row's key."""
        return Pages("", max((id for name, id in self.content if name == table.name), default=0) + 1, 2)

    def written_since(self, use: TableUse, xid: int, first: int, end: int) -> list[Values]:
        self._read(use.table.name)
        columns = (use.lookup or self._rows.model.compiled.rendered.root_lookup).columns
        read = range(first, end)
        rows = [image for (table, id), image in self.content.items() if table == use.table.name and id in read]
        return [
            tuple(str(row[column]) for column in columns)
            for row in rows
            if self._writers.get((use.table.name, row["id"]), 0) >= xid
        ]

    def _note_absent(self, keys: Iterable[Key]) -> None:
        """Notes the roots that a plan or a range leaves out, because this snapshot does not have them."""
        absent, there = self._rows.database.absent, set(self._rows.model.keys(self.content))
        for key in keys:
            if key not in there:
                id = document_id(key)
                absent[id] = max(self.head.snapshot.clock, absent.get(id, 0))
