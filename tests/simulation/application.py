"""The application's statements, and the read model that is declared over its tables.

Orders are the root. They have items, and an item names a product. So there are two links: an item holds its order's
key, and can move to another order; a product is linked to orders through a look-up in another table. An order can be
hidden, which deletes its document.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse
from syncer.events import Operation
from tests.harness.catalogs import catalog, table
from tests.simulation.choices import Choices
from tests.simulation.database import Database, Image, RowId, Rows, Transaction
from tests.simulation.history import History
from tests.simulation.odds import Odds

DECLARATION = """
name: orders
root: {table: public.orders}
where: not hidden
document:
  note: note
  items:
    many: public.items
    on: {order_id: id}
    order_by: id
    document: {n: n, product: {one: public.products, on: {id: product_id}, value: name}}
sink: {memory: {}}
"""
TABLES = "orders", "items", "products"
CATALOG = ("catalog", 0)
"""The key of the row that stands for the catalog's version of the tables."""


@cache
def compiled() -> Compiled:
    """Compiles the declaration as the syncer does."""
    tables = catalog(
        table("orders", "id bigint key, note bigint, hidden boolean", full=True),
        table("items", "id bigint key, order_id bigint, product_id bigint, n bigint", full=True),
        table("products", "id bigint key, name bigint"),
    )
    return compile(parse(DECLARATION, "orders.yaml"), tables)


class Sizes(NamedTuple):
    """The number of keys of each table. Rows have the keys 1 to this number."""

    orders: int
    items: int
    products: int


def document(rows: Rows, id: int, sizes: Sizes) -> bytes | None:
    """Returns the declared document of an order. None if it has none."""
    order = rows.get(("orders", id))
    if order is None or order["hidden"]:
        return None
    shown = []
    for item in range(1, sizes.items + 1):
        row = rows.get(("items", item))
        if row is not None and row["order_id"] == id:
            product = rows.get(("products", row["product_id"]))
            shown.append((row["n"], product["name"] if product else None))
    return b"%d %b" % (order["note"], str(shown).encode())


def documents(rows: Rows, sizes: Sizes) -> dict[str, bytes]:
    """Returns all declared documents, by id."""
    found = {str(id): document(rows, id, sizes) for id in range(1, sizes.orders + 1)}
    return {id: body for id, body in found.items() if body is not None}


class Application:
    """Opens a few transactions at a time, and continues any of them.

    left: the number of transactions that it still begins. For window, asynchronous, truncates and lacks_old_row see
    `Odds`.
    """

    def __init__(
        self, database: Database, choices: Choices, history: History, sizes: Sizes, odds: Odds, *, left: int
    ) -> None:
        self.database, self.choices, self.history, self.sizes = database, choices, history, sizes
        self.left, self.odds = left, odds
        self.window, self.asynchronous = choices.likely(odds.window), choices.likely(odds.asynchronous)
        self.truncates = choices.likely(odds.truncates)
        self.lacks_old_row = bool(odds.lacks_old_row) and choices.likely(odds.lacks_old_row)
        self.changes_keys = False
        """Whether an item may get another key. Then it moves to another bucket."""
        self._values = 10

    def step(self) -> None:
        """Begins a transaction, or continues one."""
        running = list(self.database.running.values())
        if self.left and len(running) < 3:
            at = self.choices.of(len(running) + 1)
        elif running:
            at = 1 + self.choices.of(len(running))
        else:
            self.database.flush()
            return
        if at == 0:
            self._begin()
        else:
            self.proceed(running[at - 1])

    def finish(self) -> None:
        """Ends all open transactions."""
        for transaction in list(self.database.running.values()):
            while transaction.xid in self.database.running:
                self.proceed(transaction)
        self.database.flush()

    def touch(self) -> None:
        """Makes one more change, so that no lane stays idle."""
        transaction = self.database.begin(0, asynchronous=False)
        self.database.write(transaction, ("orders", 1), "u", {"id": 1, "note": 0, "hidden": False})

    def bring_back(self) -> None:
        """Inserts the orders that are missing, and shows those that are hidden, in one transaction each."""
        database = self.database
        for id in range(1, self.sizes.orders + 1):
            old = database.rows.get(("orders", id))
            if old is None or old["hidden"]:
                transaction = database.begin(0, asynchronous=False)
                database.write(transaction, ("orders", id), "u" if old else "c", {"id": id, "note": 0, "hidden": False})
                self.history.log("application", "%s: order %s is back", transaction, id)
                database.commit(transaction)
                database.show(transaction)

    def fill_orders(self) -> None:
        """Inserts an item into each order that has none, in one transaction each, while ids are free."""
        database = self.database
        free = [id for id in range(1, self.sizes.items + 1) if ("items", id) not in database.rows]
        filled = {row["order_id"] for (name, _), row in database.rows.items() if name == "items"}
        for order in range(1, self.sizes.orders + 1):
            if order not in filled and free:
                id, transaction = free.pop(), database.begin(0, asynchronous=False)
                database.write(transaction, ("items", id), "c", {"id": id, "order_id": order, "product_id": 1, "n": 0})
                self.history.log("application", "%s: order %s has item %s", transaction, order, id)
                database.commit(transaction)
                database.show(transaction)

    def detach(self) -> None:
        """Removes an item without an event, as DETACH PARTITION does. Does nothing while others use the table."""
        database, ids = self.database, range(1, self.sizes.items + 1)
        there = [id for id in ids if ("items", id) in database.rows]
        if not there or not database.unread("items") or any(("items", id) in database.locked for id in ids):
            return
        gone, transaction = there[self.choices.of(len(there))], database.begin(0, asynchronous=False)
        self._values += 1
        database.rewrite(transaction, "items", ids)
        transaction.writes["items", gone] = None
        transaction.writes[CATALOG] = {"shape": self._values}
        self.history.seen["a row vanished without an event"] += 1
        self.history.log("application", "%s: detaches the partition with item %s", transaction, gone)

    def proceed(self, transaction: Transaction) -> None:
        """Commits or aborts a transaction, or makes it visible."""
        database, log = self.database, self.history.log
        if transaction.commit_lsn:
            if self.window and self.choices.likely(128):
                return  # the standby has not answered yet
            database.show(transaction)
            log("PostgreSQL", "%s is visible", transaction)
        elif self.choices.likely(self.odds.rollbacks):
            self.history.seen["an aborted transaction"] += 1
            database.abort(transaction)
            log("application", "%s is rolled back", transaction)
        else:
            database.commit(transaction)
            if transaction.asynchronous:
                self.history.seen["an asynchronous commit"] += 1
                log("application", "%s commits, not flushed yet", transaction)
            elif self.window and self.choices.likely(190):
                self.history.seen["a transaction committed and not visible"] += 1
                log("application", "%s commits, not visible yet", transaction)
                return
            else:
                log("application", "%s commits", transaction)
            database.show(transaction)

    def _begin(self) -> None:
        self.left -= 1
        asynchronous = self.asynchronous and self.choices.likely(180)
        transaction = self.database.begin(self.choices.of(4) // 3, asynchronous=asynchronous)
        for _ in range(1 + self.choices.of(3)):
            self._write(transaction)

    def _write(self, transaction: Transaction) -> None:
        """Executes one statement. Does nothing if another transaction holds the row."""
        if self.truncates and self.choices.likely(24):
            self._take_table(transaction)
            return
        at, (orders, items, _) = self.choices.of(10), self.odds.writes
        name = "orders" if at < orders else "items" if at < orders + items else "products"
        row = (name, 1 + self.choices.of(getattr(self.sizes, name)))
        if not self.database.free(transaction, row):
            return
        old = self.database.current(transaction, row)
        if self.changes_keys and old is not None and name == "items" and self.choices.likely(80):
            self._change_key(transaction, row, old)
            return
        new = self._changed(name, row[1], old)
        if new is None and old is None:
            return
        op: Operation = "c" if old is None else "d" if new is None else "u"
        lacks_old_row = self.lacks_old_row and name == "items" and op == "u" and self.choices.likely(190)
        if lacks_old_row:
            self.history.seen["an update without its old row"] += 1
        self.database.write(transaction, row, op, new, lacks_old_row=lacks_old_row)
        self.history.log("application", "%s: %s %s is %s", transaction, name[:-1], row[1], new or "deleted")

    def _change_key(self, transaction: Transaction, row: RowId, old: Image) -> None:
        """Gives an item another key. The connector sends a delete and an insert."""
        database = self.database
        rows = [("items", id) for id in range(1, self.sizes.items + 1)]
        free = [r for r in rows if database.free(transaction, r) and database.current(transaction, r) is None]
        if free:
            other = free[self.choices.of(len(free))]
            self.history.seen["an item moved to another key"] += 1
            database.write(transaction, row, "d", None)
            database.write(transaction, other, "c", {**old, "id": other[1]})
            self.history.log("application", "%s: item %s becomes item %s", transaction, row[1], other[1])

    def _changed(self, name: str, id: int, old: Image | None) -> Image | None:
        """Returns the next image of a row: of an insert if there is no row, else of an update or a delete."""
        self._values += 1
        value, choose = self._values, self.choices.of
        if name == "products":
            return {"id": id, "name": value}
        if name == "orders":
            if old is None:
                return {"id": id, "note": value, "hidden": False}
            return ({**old, "note": value}, {**old, "hidden": not old["hidden"]}, None)[choose(3)]
        order, product = 1 + choose(self.sizes.orders), 1 + choose(self.sizes.products)
        if old is None:
            return {"id": id, "order_id": order, "product_id": product, "n": value}
        updates = {**old, "n": value}, {**old, "order_id": order}, {**old, "product_id": product}
        return (*updates, None)[choose(4)]

    def _take_table(self, transaction: Transaction) -> None:
        """Truncates a table, or rewrites it as ALTER TABLE does. Does nothing if another transaction uses the table."""
        rewrites, name = self.choices.likely(100), ("items", "orders")[self.choices.of(2)]
        ids = range(1, getattr(self.sizes, name) + 1)
        free = all(self.database.free(transaction, (name, id)) for id in ids)
        if not free or not self.database.unread(name):
            return
        self.history.seen["a rewritten table" if rewrites else "a truncate"] += 1
        (self.database.rewrite if rewrites else self.database.truncate)(transaction, name, ids)
        self.history.log("application", "%s: %s %s", transaction, "rewrites" if rewrites else "truncates", name)
