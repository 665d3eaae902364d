"""A read model of orders with their items, and change events of its tables."""

from __future__ import annotations

import orjson

from syncer.declaration.compile import Compiled, Lookup, TableUse
from syncer.events import ChangeEvent, Position, TableName
from syncer.pipeline import decode

AT = Position("shop.public.items", 0, 7)
ORDERS, ITEMS = TableName("public", "orders"), TableName("public", "items")
TO_ROOT = Lookup(("order_id",), ("bigint",), None)
ITEM = TableUse("items", ITEMS, TO_ROOT, frozenset({"order_id", "price"}), frozenset({"order_id", "price"}))
ROOT = TableUse("", ORDERS, None, frozenset({"id", "status"}), frozenset())
MODEL = Compiled("orders", ORDERS, ("id",), ("bigint",), (ROOT, ITEM), (), "", "", "", "", "", "")


def event(op: str = "u", **fields: object) -> bytes:
    source = {"schema": "public", "table": "items", "txId": 7, "ts_ms": 1000}
    return orjson.dumps({"op": op, "source": source, **fields})


def item(op: str, before: object, after: object) -> ChangeEvent:
    change = decode.change(AT, event(op, before=before, after=after))
    assert change is not None
    return change
