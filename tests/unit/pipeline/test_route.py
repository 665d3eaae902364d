"""Stage 3: the table uses that a change touches."""

from __future__ import annotations

from syncer.events import ChangeEvent
from syncer.pipeline.route import UNAVAILABLE, Route
from tests.unit.pipeline.examples import ITEM, MODEL, ORDERS, ROOT, item


def test_an_update_of_unused_columns_touches_nothing() -> None:
    route = Route(MODEL)
    row = {"order_id": 1, "price": "2.50", "note": "a"}
    assert route(item("u", row, {**row, "note": "b"})) == []
    assert route(item("u", row, {**row, "price": "2.51"})) == [ITEM]


def test_hazard_03_in_doubt_an_update_touches_the_table_use() -> None:
    route = Route(MODEL)
    row = {"order_id": 1, "price": "2.50"}
    assert route(item("u", None, row)) == [ITEM], "no before-image"
    assert route(item("u", {"order_id": 1}, {"order_id": 1})) == [ITEM], "a column is in neither image"
    assert route(item("u", {**row, "price": 2.5}, {**row, "price": 2.5})) == [ITEM], "lost digits"
    toasted = {**row, "price": UNAVAILABLE}
    assert route(item("u", toasted, toasted)) == [ITEM], "unchanged TOAST"
    changed = ChangeEvent(ORDERS, "u", {"id": 1, "status": "x"}, {"id": 1, "status": "x"}, 1, 1)
    assert route(changed) == [ROOT], "the replica identity lacks the columns"
