"""Finds the changes that reached one root: by links of now, by links of earlier images, at every depth."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson
import pytest

from syncer.declaration.compile import compile
from syncer.declaration.model import parse
from syncer.declaration.trace_sql import TracedUse, trace_sql
from syncer.events import Position, Values
from syncer.operations.trace import changes as module
from syncer.operations.trace.changes import Changes, FoundChange
from syncer.ports import Record
from tests.harness.catalogs import catalog, table

CATALOG = catalog(
    table("orders", "id bigint key, customer_id bigint, status text, secret text", full=True),
    table("customers", "id bigint key, name text", full=True),
    table("items", "id bigint key, order_id bigint, product_id bigint", full=True),
    table("products", "id bigint key, name text, weight int", full=True),
)
MODEL = parse(
    """\
name: orders
root: {table: orders}
document:
  status: status
  customer: {one: customers, on: {id: customer_id}, value: name}
  items:
    many: items
    on: {order_id: id}
    document: {product: {one: products, on: {id: product_id}, value: name}}
sink: {memory: {}}
""",
    "orders.yaml",
)
COMPILED = compile(MODEL, CATALOG)
Link = dict[str, set[Values]]


class Traced:
    """Traces order 1. now: path of a table use → the link values that lead to the order in PostgreSQL."""

    def __init__(self, now: Link | None = None) -> None:
        self.now = now or {}
        self.changes = Changes(COMPILED, trace_sql(MODEL, CATALOG, COMPILED).uses, ("1",), self._leading)
        self.records: list[tuple[Record, int]] = []

    def _leading(self, one: TracedUse, values: Collection[Values]) -> set[Values]:
        return self.now.get(one.use.path, set()) & set(values)

    def event(self, table: str, op: str, before: Any = None, after: Any = None, ms: int = 0) -> None:
        source = {"schema": "public", "table": table, "txId": 7, "ts_ms": ms or 1000 + len(self.records)}
        value = orjson.dumps({"op": op, "source": source, "before": before, "after": after})
        self.record(table, value)

    def record(self, table: str, value: bytes) -> None:
        self.records.append((Record(Position(table, 0, len(self.records)), None, value), 2000))

    def found(self) -> list[FoundChange]:
        """Adds all records, as the topics would be read."""
        for depth in range(self.changes.depths):
            tables = {table.name for table in self.changes.tables(depth)}
            self.changes.add(depth, [entry for entry in self.records if entry[0].position.topic in tables])
        return self.changes.in_order()

    def ways(self) -> list[tuple[str, tuple[str, ...], bool]]:
        """Returns path, images and `earlier` of every way to the order."""
        return [(way.path, way.images, way.earlier) for found in self.found() for way in found.reaches]


def item(id: int, order: int, product: int) -> dict[str, int]:
    return {"id": id, "order_id": order, "product_id": product}


def order(id: int, **columns: Any) -> dict[str, Any]:
    return {"id": id, "customer_id": 5, "status": "new", "secret": "x", **columns}


def test_only_changes_of_rows_that_lead_to_the_root_are_found() -> None:
    traced = Traced({"items.product": {("10",)}, "customer": {("5",)}})
    traced.event("orders", "c", after=order(1))
    traced.event("orders", "c", after=order(2))
    traced.event("customers", "u", {"id": 5, "name": "a"}, {"id": 5, "name": "b"})
    traced.event("customers", "u", {"id": 6, "name": "a"}, {"id": 6, "name": "b"})
    traced.event("items", "c", after=item(100, 1, 10))
    traced.event("products", "d", {"id": 10, "name": "pen", "weight": 1})
    traced.event("products", "d", {"id": 11, "name": "ink", "weight": 1})
    assert traced.ways() == [
        ("", ("after",), False),
        ("customer", ("before", "after"), False),
        ("items", ("after",), False),
        ("items.product", ("before",), False),
    ]
    assert [found.key for found in traced.found()] == [("1",), ("5",), ("100",), ("10",)]


@pytest.mark.parametrize(("before", "after", "image"), [(1, 2, "before"), (2, 1, "after")])
def test_a_child_that_moves_is_found_by_the_image_that_belongs_to_the_root(before: int, after: int, image: str) -> None:
    traced = Traced()
    traced.event("items", "u", item(100, before, 10), item(100, after, 10))
    assert traced.ways() == [("items", (image,), False)]


def test_a_row_below_a_child_that_left_is_found_by_the_link_in_the_childs_image() -> None:
    traced = Traced()
    # The product changes before its item leaves the order. Kafka has both changes in different topics.
    traced.event("products", "u", {"id": 10, "name": "pen", "weight": 1}, {"id": 10, "name": "ink", "weight": 1})
    traced.event("items", "u", item(100, 1, 10), item(100, 2, 11))
    traced.event("products", "u", {"id": 11, "name": "a", "weight": 1}, {"id": 11, "name": "b", "weight": 1})
    assert traced.ways() == [("items.product", ("before", "after"), True), ("items", ("before",), False)]


def test_the_rows_of_a_deleted_root_are_found_by_its_last_image() -> None:
    traced = Traced()
    traced.event("customers", "u", {"id": 5, "name": "a"}, {"id": 5, "name": "b"})
    traced.event("orders", "d", order(1))
    assert traced.ways() == [("customer", ("before", "after"), True), ("", ("before",), False)]


def test_a_change_of_unused_columns_does_not_touch_the_document() -> None:
    traced = Traced({"items.product": {("10",)}})
    traced.event("orders", "u", order(1), order(1, secret="y"))
    traced.event("products", "u", {"id": 10, "name": "pen", "weight": 1}, {"id": 10, "name": "pen", "weight": 2})
    traced.event("orders", "u", order(1), order(1, status="paid"))
    assert [found.touches for found in traced.found()] == [False, False, True]


def test_a_truncate_reaches_every_root() -> None:
    traced = Traced()
    traced.event("items", "t")
    [found] = traced.found()
    assert found.touches and found.key == () and found.reaches[0].path == "items"


def test_records_that_cannot_be_read_are_counted() -> None:
    traced = Traced()
    traced.record("orders", b"{")
    traced.event("items", "c", after={"id": 100})  # lacks the link
    traced.event("orders", "c", after=order(1))
    assert len(traced.found()) == 1 and len(traced.changes.unreadable) == 2


def test_a_record_that_is_read_again_counts_once() -> None:
    traced = Traced()
    traced.event("items", "c", after=item(100, 1, 10))
    assert traced.found() == traced.found()
    assert len(traced.found()[0].reaches) == 1


def test_only_the_newest_changes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    traced = Traced()
    for n in range(5):
        traced.event("orders", "u", order(1), order(1, status=str(n)))
    assert [found.change.after for found in traced.found()] == [order(1, status="3"), order(1, status="4")]
    assert traced.changes.omitted == 3


def test_changes_are_ordered_by_their_commits() -> None:
    traced = Traced()
    traced.event("orders", "c", after=order(1), ms=30)
    traced.event("items", "c", after=item(100, 1, 10), ms=20)
    traced.event("items", "c", after=item(101, 1, 10), ms=10)
    assert [found.key for found in traced.found()] == [("101",), ("100",), ("1",)]
