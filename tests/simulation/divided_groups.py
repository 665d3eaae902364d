"""A grouped root with partials: the items of an order in buckets of two ids.

The groups are those of `read_models.Groups`, except that the items of a hidden order do not count. So a change of an
order can delete the document of its group, and bring it back. Each kind of joined row occurs:

    order    `where` reads it, so the buckets and the root partial do
    again    the same order, which only the document shows
    product  only an aggregate reads it
"""

from __future__ import annotations

from collections.abc import Collection

import orjson

from syncer.declaration.compile import Lookup
from syncer.declaration.partial_keys import ROOT
from syncer.document import Row, document_id
from syncer.events import Key, Values
from tests.simulation.application import Sizes
from tests.simulation.database import Image, Rows
from tests.simulation.read_models import BUCKET, aggregates, all_partials, compiled_of, items_in

DECLARATION = f"""
name: orders
root:
  table: public.items
  group: {{order_id: order_id}}
  nulls: drop
  partials: {{by: id, size: {BUCKET}}}
where: order.hidden is not true
relations:
  order: {{one: public.orders, on: {{id: order_id}}}}
  again: {{one: public.orders, on: {{id: order_id}}}}
  product: {{one: public.products, on: {{id: product_id}}}}
document: {{note: again.note, items: count(*), total: sum(n), names: sum(product.name)}}
sink: {{memory: {{}}}}
"""


class DividedGroups:
    """Groups of items in buckets. The lanes render partials."""

    root_tables = ("items",)

    def __init__(self, sizes: Sizes) -> None:
        self.compiled, self.sizes = compiled_of(DECLARATION), sizes
        if self.compiled.partials is None:
            raise AssertionError("the declaration has partials")
        self.lookups = {use.path: use.lookup for use in self.compiled.rendered.table_uses}
        """By relation; empty for the grouped rows."""
        self._own, self._order, self._again = (self.lookups[path] for path in ("", "order", "again"))
        self._every = self.compiled.partials.every

    def keys(self, rows: Rows) -> list[Key]:
        return [
            key for order in sorted({item["order_id"] for item in items_in(rows)}) for key in all_partials(rows, order)
        ]

    def possible_keys(self) -> list[Key]:
        return [(str(id), str(ROOT)) for id in range(1, self.sizes.orders + 1)]

    def render(self, rows: Rows, key: Key) -> Row:
        order, bucket, id = int(key[0]), int(key[1]), document_id(key)
        items = self._shown(rows, order)
        if bucket != ROOT:
            of_bucket = [item for item in items if item["id"] // BUCKET == bucket]
            states = [None if value is None else str(value) for value in aggregates(rows, of_bucket).values()]
            return Row(id, id, orjson.dumps(states))
        if not items:
            return Row(id, None, None)
        return Row(id, id, orjson.dumps({"note": self._note(rows, order)}))

    def look_up(self, rows: Rows, lookup: Lookup, values: Collection[Values]) -> set[Key]:
        first = {int(one[0] or 0) for one in values}
        if lookup == self._own:
            ids = {(order or "", str(int(id or 0) // BUCKET)) for order, id in values}
            return ids | {(order, str(ROOT)) for order, _ in ids}
        if lookup == self._every:
            return {key for order in first for key in all_partials(rows, order)}
        column = "order_id" if lookup in (self._order, self._again) else "product_id"
        linked = [item for item in items_in(rows) if item[column] in first]
        buckets: set[Key] = {(str(item["order_id"]), str(item["id"] // BUCKET)) for item in linked}
        roots: set[Key] = {(order, str(ROOT)) for order, _ in buckets}
        if lookup == self._again:
            return roots
        return buckets | roots if lookup == self._order else buckets

    def documents(self, rows: Rows) -> dict[str, bytes]:
        found = {}
        for order in range(1, self.sizes.orders + 1):
            if items := self._shown(rows, order):
                found[str(order)] = orjson.dumps({"note": self._note(rows, order), **aggregates(rows, items)})
        return found

    def _shown(self, rows: Rows, order: int) -> list[Image]:
        if (rows.get(("orders", order)) or {}).get("hidden"):
            return []
        return [item for item in items_in(rows) if item["order_id"] == order]

    def _note(self, rows: Rows, order: int) -> int | None:
        return (rows.get(("orders", order)) or {}).get("note")
