"""The read models of the worlds, over the tables and statements of `application.py`.

    Orders    a document for each order, with a list of its items
    Combined  a document for each order, combined from partials: the order itself, and its items in buckets of two ids
    Groups    a document for each value of `items.order_id`: a grouped root

`divided_groups.py` and `boards.py` have two more. Each computes its documents in Python, from the rows that a snapshot
shows. So they can be compared with those that the pipeline wrote. The look-ups do what the SQL of the declaration does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol

import orjson

from syncer.declaration.compile import Compiled, Lookup, compile
from syncer.declaration.model import parse
from syncer.declaration.partial_keys import HIDDEN, ROOT
from syncer.document import Row, document_id
from syncer.events import Key, Values
from tests.harness.catalogs import catalog, table
from tests.simulation import application
from tests.simulation.application import Sizes
from tests.simulation.database import Image, Rows

BUCKET = 2
"""The number of item ids in a bucket. Bucket 0 has the id 1 only."""
_TABLES = catalog(
    table("orders", "id bigint key, note bigint, hidden boolean", full=True),
    table("items", "id bigint key, order_id bigint, product_id bigint, n bigint", full=True),
    table("products", "id bigint key, name bigint"),
)
BEST = 2
"""The length of the list of the items with the highest numbers."""
_COMBINED = f"""
name: orders
root: {{table: public.orders}}
where: not hidden
document:
  note: note
  items: count(best)
  total: sum(best.n)
  names: sum(best.product.name)
  best:
    many: public.items
    on: {{order_id: id}}
    order_by: n desc
    limit: {BEST}
    relations: {{product: {{one: public.products, on: {{id: product_id}}}}}}
    partials: {{by: id, size: {BUCKET}}}
    value: n
sink: {{memory: {{}}}}
"""
_GROUPS = """
name: orders
root: {table: public.items, group: {order_id: order_id}, nulls: drop}
relations:
  order: {one: public.orders, on: {id: order_id}}
  product: {one: public.products, on: {id: product_id}}
document: {note: order.note, items: count(*), total: sum(n), names: sum(product.name)}
sink: {memory: {}}
"""


class ReadModel(Protocol):
    """A read model over the tables of `application.py`."""

    compiled: Compiled

    @property
    def root_tables(self) -> Sequence[str]:
        """The tables that a plan of a backfill reads."""
        ...

    def keys(self, rows: Rows) -> list[Key]:
        """Returns the keys that a backfill renders, in their order."""
        ...

    def possible_keys(self) -> list[Key]:
        """Returns the keys that a backfill may leave out, because their rows are missing."""
        ...

    def render(self, rows: Rows, key: Key) -> Row: ...

    def look_up(self, rows: Rows, lookup: Lookup, values: Collection[Values]) -> set[Key]: ...

    def documents(self, rows: Rows) -> dict[str, bytes]:
        """Returns all declared documents, by id. They are what readers should see."""
        ...


class Orders:
    """The read model of `application.py`."""

    root_tables = ("orders",)

    def __init__(self, sizes: Sizes) -> None:
        self.compiled, self.sizes = application.compiled(), sizes

    def keys(self, rows: Rows) -> list[Key]:
        return [key for key in self.possible_keys() if ("orders", int(key[0])) in rows]

    def possible_keys(self) -> list[Key]:
        return [(str(id),) for id in range(1, self.sizes.orders + 1)]

    def render(self, rows: Rows, key: Key) -> Row:
        id = key[0]
        found = id if ("orders", int(id)) in rows else None
        return Row(id, found, application.document(rows, int(id), self.sizes))

    def look_up(self, rows: Rows, lookup: Lookup, values: Collection[Values]) -> set[Key]:
        """The only look-up is the one from products, through items."""
        products = {int(value or 0) for (value,) in values}
        return {(str(item["order_id"]),) for item in items_in(rows) if item["product_id"] in products}

    def documents(self, rows: Rows) -> dict[str, bytes]:
        return application.documents(rows, self.sizes)


class Combined:
    """Orders whose items are aggregated in buckets. The lanes render partials."""

    root_tables = ("orders", "items")

    def __init__(self, sizes: Sizes) -> None:
        self.compiled, self.sizes = compiled_of(_COMBINED), sizes
        if self.compiled.partials is None:
            raise AssertionError("the declaration has partials")
        uses = {use.path: use.lookup for use in self.compiled.rendered.table_uses}
        self._root, self._every, self._own = uses[""], uses["(all partials)"], uses["best"]

    def keys(self, rows: Rows) -> list[Key]:
        return [
            key
            for order in range(1, self.sizes.orders + 1)
            if ("orders", order) in rows
            for key in all_partials(rows, order)
        ]

    def possible_keys(self) -> list[Key]:
        return [(str(id), str(ROOT)) for id in range(1, self.sizes.orders + 1)]

    def render(self, rows: Rows, key: Key) -> Row:
        order, bucket = int(key[0]), int(key[1])
        id = document_id(key)
        if bucket != ROOT:
            items = [item for item in items_in(rows) if item["order_id"] == order and item["id"] // BUCKET == bucket]
            states = [None if value is None else str(value) for value in aggregates(rows, items).values()]
            best = [[str(item["n"]), str(item["id"]), f"[{item['n']}]"] for item in _best(items)]
            return Row(id, id, orjson.dumps([*states, orjson.dumps(best).decode()]))
        row = rows.get(("orders", order))
        if row is None:
            return Row(id, None, None)
        return Row(id, id, HIDDEN.encode() if row["hidden"] else orjson.dumps({"note": row["note"]}))

    def look_up(self, rows: Rows, lookup: Lookup, values: Collection[Values]) -> set[Key]:
        if lookup == self._own:
            return {(order or "", str(int(id or 0) // BUCKET)) for order, id in values}
        first = {int(one[0] or 0) for one in values}
        if lookup == self._root:
            return {(str(order), str(ROOT)) for order in first}
        if lookup == self._every or (self.compiled.partials and lookup == self.compiled.partials.every):
            return {key for order in first for key in all_partials(rows, order)}
        shown = [item for item in items_in(rows) if item["product_id"] in first]
        return {(str(item["order_id"]), str(item["id"] // BUCKET)) for item in shown}

    def documents(self, rows: Rows) -> dict[str, bytes]:
        found = {}
        for order in range(1, self.sizes.orders + 1):
            row = rows.get(("orders", order))
            if row is not None and not row["hidden"]:
                items = [item for item in items_in(rows) if item["order_id"] == order]
                found[str(order)] = orjson.dumps(
                    {"note": row["note"], **aggregates(rows, items), "best": [item["n"] for item in _best(items)]}
                )
        return found


class Groups:
    """Groups of items. A group without items has no document."""

    root_tables = ("items",)

    def __init__(self, sizes: Sizes) -> None:
        self.compiled, self.sizes = compiled_of(_GROUPS), sizes
        uses = {use.path: use.lookup for use in self.compiled.table_uses}
        self._own, self._order = uses[""], uses["order"]

    def keys(self, rows: Rows) -> list[Key]:
        return [(str(order),) for order in sorted({item["order_id"] for item in items_in(rows)})]

    def possible_keys(self) -> list[Key]:
        return [(str(id),) for id in range(1, self.sizes.orders + 1)]

    def render(self, rows: Rows, key: Key) -> Row:
        order, id = int(key[0]), key[0]
        items = [item for item in items_in(rows) if item["order_id"] == order]
        if not items:
            return Row(id, None, None)
        note = (rows.get(("orders", order)) or {}).get("note")
        return Row(id, id, orjson.dumps({"note": note, **aggregates(rows, items)}))

    def look_up(self, rows: Rows, lookup: Lookup, values: Collection[Values]) -> set[Key]:
        first = {int(one[0] or 0) for one in values}
        if lookup == self._own:
            return {(str(order),) for order in first}
        column = "order_id" if lookup == self._order else "product_id"
        return {(str(item["order_id"]),) for item in items_in(rows) if item[column] in first}

    def documents(self, rows: Rows) -> dict[str, bytes]:
        found = [self.render(rows, key) for key in self.keys(rows)]
        return {row.asked: row.body for row in found if row.body is not None}


READ_MODELS: dict[str, Callable[[Sizes], ReadModel]] = {"orders": Orders, "combined": Combined, "groups": Groups}


@cache
def compiled_of(declaration: str) -> Compiled:
    return compile(parse(declaration, "orders.yaml"), _TABLES)


def items_in(rows: Rows) -> Iterable[Image]:
    return [row for (name, _), row in rows.items() if name == "items"]


def aggregates(rows: Rows, items: Sequence[Image]) -> Mapping[str, int | None]:
    """Returns the aggregates of some items. A sum of no values is NULL."""
    products = [rows.get(("products", item["product_id"])) for item in items]
    names = [product["name"] for product in products if product]
    total = sum(item["n"] for item in items) if items else None
    return {"items": len(items), "total": total, "names": sum(names) if names else None}


def _best(items: Iterable[Image]) -> list[Image]:
    """Returns the items with the highest numbers, the highest first."""
    return sorted(items, key=lambda item: (-item["n"], item["id"]))[:BEST]


def all_partials(rows: Rows, order: int) -> list[Key]:
    """Returns the keys of all partials of an order that have rows, in their order."""
    buckets = sorted({item["id"] // BUCKET for item in items_in(rows) if item["order_id"] == order})
    return [(str(order), str(bucket)) for bucket in [*buckets, ROOT]]


def order_of(key: Key) -> tuple[int, ...]:
    """Returns the values by which keys are sorted."""
    return tuple(map(int, key))
