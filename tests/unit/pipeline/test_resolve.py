"""Stage 4: the dirty roots of a change, and the text of event values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncer.declaration.compiled import Lookup, TableUse
from syncer.errors import Fatal
from syncer.events import ChangeEvent
from syncer.pipeline.resolve import Dirty, Resolve, text
from tests.unit.pipeline.examples import ITEM, ITEMS, MODEL, ORDERS, ROOT, item


def test_the_roots_of_both_images_are_dirty() -> None:
    dirty = Dirty()
    Resolve(MODEL)(item("u", {"order_id": 1}, {"order_id": 2}), [ITEM], dirty)
    Resolve(MODEL)(item("d", {"order_id": 3}, None), [ITEM], dirty)
    Resolve(MODEL)(item("c", None, {"order_id": None}), [ITEM], dirty)
    assert list(dirty.keys) == [("1",), ("2",), ("3",)]


def test_hazard_08_keys_are_deduplicated_never_events() -> None:
    """A row that moved twice dirties all three roots, although only its last event has its final state."""
    dirty = Dirty()
    for before, after in ((1, 2), (2, 3), (2, 3)):
        Resolve(MODEL)(item("u", {"id": 7, "order_id": before}, {"id": 7, "order_id": after}), [ITEM], dirty)
    assert list(dirty.keys) == [("1",), ("2",), ("3",)]


def test_a_truncate_dirties_all_roots() -> None:
    dirty = Dirty()
    Resolve(MODEL)(ChangeEvent(ITEMS, "t", None, None, 1, 1), [ITEM], dirty)
    assert (dirty.all_roots, dirty.root_gone) == (True, False)
    Resolve(MODEL)(ChangeEvent(ORDERS, "t", None, None, 1, 1), [ROOT], dirty)
    assert (dirty.all_roots, dirty.root_gone) == (True, True)


GROUPS = Lookup(("kind", "at"), ("text", "bigint"), "SELECT …", nulls=True)
GROUPED = TableUse("", ITEMS, GROUPS, frozenset({"kind", "at"}), frozenset())


def test_both_images_of_a_grouped_row_are_looked_up_with_their_nulls() -> None:
    dirty = Dirty()
    Resolve(MODEL)(item("u", {"kind": "a", "at": 1}, {"kind": None, "at": 2}), [GROUPED], dirty)
    assert dirty.lookups == {GROUPS: {("a", "1"): None, (None, "2"): None}}


def test_a_truncate_of_a_grouped_table_leaves_no_group() -> None:
    dirty = Dirty()
    Resolve(MODEL)(ChangeEvent(ITEMS, "t", None, None, 1, 1), [GROUPED], dirty)
    assert (dirty.all_roots, dirty.root_gone) == (False, True)


def test_an_event_without_the_linking_column_is_fatal() -> None:
    with pytest.raises(Fatal, match="lacks the column 'order_id'"):
        Resolve(MODEL)(item("c", None, {"id": 1}), [ITEM], Dirty())


def test_hazard_02_an_update_that_lacks_its_old_row_is_detected() -> None:
    moved = item("u", None, {"order_id": 2})
    assert not Resolve(MODEL).lacks_old_row(moved)  # an index identity omits the old row if its columns did not change
    resolve = Resolve(replace(MODEL, table_uses=(ROOT, replace(ITEM, needs_before=True))))
    assert resolve.lacks_old_row(moved)
    assert not resolve.lacks_old_row(item("u", {"order_id": 1}, {"order_id": 2}))
    assert not resolve.lacks_old_row(item("c", None, {"order_id": 2}))
    assert not resolve.lacks_old_row(item("d", {"order_id": 2}, None))
    assert not resolve.lacks_old_row(ChangeEvent(ORDERS, "u", None, {"id": 1, "status": "x"}, 1, 1))


def test_event_values_become_the_text_of_their_type() -> None:
    assert text(5, "bigint") == "5"
    assert text(5, "numeric") == text(5, "text") == "5", "from before the column was widened"
    assert text(True, "boolean") == "true"
    assert text("deadbeef", "bytea") == "\\xdeadbeef"
    assert text("1.00", "numeric") == "1.00"
    assert text("NEGATIVE_INFINITY", "numeric") == "-Infinity"
    assert text("2024-02-29Z", "date") == "2024-02-29"
    assert text("+20240-01-01Z", "date") == "20240-01-01"
    assert text("-0043-03-15Z", "date") == "0044-03-15 BC"
    assert text("+5877611-06-21Z", "date") == "infinity"
    assert text("-5877611-06-21Z", "date") == "infinity"  # before Debezium 3.7
    assert text("2024-02-29T12:34:56.1Z", "timestamp without time zone") == "2024-02-29T12:34:56.1Z"
    assert text("-0043-03-15T00:00:00Z", "timestamp with time zone") == "0044-03-15T00:00:00 BC"
    assert text("0000-12-31Z", "date") == "0001-12-31 BC"
    assert text("infinity", "timestamp with time zone") == "infinity"
    assert text("-infinity", "timestamp with time zone") == "-infinity"
    for value, base in ((1.5, "numeric"), (18262, "date"), ({"scale": 1}, "numeric"), (5, "uuid")):
        with pytest.raises(Fatal, match="handling modes"):
            text(value, base)
