"""decode, route, resolve, offsets, lag, and the ids of documents: pure, so no servers."""

from __future__ import annotations

import re
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer import document
from syncer.declaration.compile import Compiled, Lookup, TableUse
from syncer.document import Row
from syncer.errors import Fatal, Reject
from syncer.events import ChangeEvent, Position, TableName, WorkItem
from syncer.pipeline import decode
from syncer.pipeline.lag import Lag
from syncer.pipeline.offsets import Offsets
from syncer.pipeline.resolve import Dirty, Resolve, text
from syncer.pipeline.route import UNAVAILABLE, Route

AT = Position("shop.public.items", 0, 7)
ORDERS, ITEMS = TableName("public", "orders"), TableName("public", "items")
TO_ROOT = Lookup(("order_id",), ("bigint",), None)
ITEM = TableUse("items", ITEMS, TO_ROOT, frozenset({"order_id", "price"}), frozenset({"order_id", "price"}))
ROOT = TableUse("", ORDERS, None, frozenset({"id", "status"}), frozenset())
MODEL = Compiled("orders", ORDERS, ("id",), ("bigint",), (ROOT, ITEM), (), "", "", "", "", "")


def event(op: str = "u", **fields: object) -> bytes:
    source = {"schema": "public", "table": "items", "txId": 7, "ts_ms": 1000}
    return orjson.dumps({"op": op, "source": source, **fields})


def item(op: str, before: object, after: object) -> ChangeEvent:
    change = decode.change(AT, event(op, before=before, after=after))
    assert change is not None
    return change


# -- decode -----------------------------------------------------------------------------------------


def test_an_event_with_and_without_schema_is_the_same() -> None:
    plain = event(after={"id": 1})
    wrapped = orjson.dumps({"schema": {}, "payload": orjson.loads(plain)})
    assert decode.change(AT, plain) == decode.change(AT, wrapped)
    assert decode.change(AT, plain) == ChangeEvent(ITEMS, "u", None, {"id": 1}, 7, 1000)


def test_a_row_read_in_a_snapshot_has_no_transaction_to_wait_for() -> None:
    assert decode.change(AT, event("r", after={"id": 1})) == ChangeEvent(ITEMS, "r", None, {"id": 1}, None, 1000)


@pytest.mark.parametrize("value", [None, event("m")])
def test_what_carries_no_change_is_passed_over(value: bytes | None) -> None:
    assert decode.change(AT, value) is None


@pytest.mark.parametrize("value", [b"\x00avro", b"[]", b"{}", b'{"op":"u"}', b'{"op":"u","source":5}'])
def test_an_undecodable_record_names_its_place(value: bytes) -> None:
    with pytest.raises(Reject, match="cannot read a change event") as error:
        decode.change(AT, value)
    assert "shop.public.items, partition 0, offset 7" in str(error.value)


def test_work_items_survive_the_topic() -> None:
    for work in (
        WorkItem("keys", "fan-out", keys=(("1", "a|b"), ("2", ""))),
        WorkItem("range", "backfill", "r1", low=None, high=("9", "1"), seconds=0.5),
        WorkItem("sweep", "truncate", not_before_ms=5, committed_ms=1_700_000_000_123),
    ):
        assert decode.work(AT, decode.encode_work(work), 2) == work


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"\x00", "not valid|unexpected|character"),
        (b"[]", "list"),
        (b'{"kind":"keys","what":1}', "what"),
        (b'{"kind":"keys","reason":"replay"}', "'keys' is unknown, or lacks a field"),
        (b'{"kind":"range","reason":"backfill","low":["1"]}', "'range' is unknown, or lacks a field"),
        (b'{"kind":"all","reason":"backfill"}', "'all'"),
        (b'{"kind":"keys","reason":"replay","keys":[["1"],["2","3"]]}', "does not consist of 1 texts"),
        (b'{"kind":"keys","reason":"replay","keys":[[1]]}', "does not consist of 1 texts"),
        (b'{"kind":"range","reason":"backfill","high":["1","2"]}', "does not consist of 1 texts"),
    ],
)
def test_a_work_item_that_cannot_be_done_is_refused(value: bytes, why: str) -> None:
    with pytest.raises(Reject, match="cannot read a work item") as error:
        decode.work(AT, value, 1)
    assert re.search(why, error.value.why)


# -- route ------------------------------------------------------------------------------------------


def test_an_update_of_unused_columns_touches_nothing() -> None:
    route = Route(MODEL)
    row = {"order_id": 1, "price": "2.50", "note": "a"}
    assert route(item("u", row, {**row, "note": "b"})) == []
    assert route(item("u", row, {**row, "price": "2.51"})) == [ITEM]


def test_hazard_03_in_doubt_an_update_counts() -> None:
    route = Route(MODEL)
    row = {"order_id": 1, "price": "2.50"}
    assert route(item("u", None, row)) == [ITEM], "no before-image"
    assert route(item("u", {"order_id": 1}, {"order_id": 1})) == [ITEM], "a column is in neither image"
    assert route(item("u", {**row, "price": 2.5}, {**row, "price": 2.5})) == [ITEM], "lost digits"
    toasted = {**row, "price": UNAVAILABLE}
    assert route(item("u", toasted, toasted)) == [ITEM], "unchanged TOAST"
    changed = ChangeEvent(ORDERS, "u", {"id": 1, "status": "x"}, {"id": 1, "status": "x"}, 1, 1)
    assert route(changed) == [ROOT], "the identity does not tell"


# -- resolve ----------------------------------------------------------------------------------------


def test_both_images_of_a_link_are_dirty() -> None:
    dirty = Dirty()
    Resolve(MODEL)(item("u", {"order_id": 1}, {"order_id": 2}), [ITEM], dirty)
    Resolve(MODEL)(item("d", {"order_id": 3}, None), [ITEM], dirty)
    Resolve(MODEL)(item("c", None, {"order_id": None}), [ITEM], dirty)
    assert list(dirty.keys) == [("1",), ("2",), ("3",)]


def test_hazard_08_keys_are_deduplicated_never_events() -> None:
    """A row that moved twice dirties all three roots, though only its last event has its last state."""
    dirty = Dirty()
    for before, after in ((1, 2), (2, 3), (2, 3)):
        Resolve(MODEL)(item("u", {"id": 7, "order_id": before}, {"id": 7, "order_id": after}), [ITEM], dirty)
    assert list(dirty.keys) == [("1",), ("2",), ("3",)]


def test_truncates_ask_for_everything() -> None:
    dirty = Dirty()
    Resolve(MODEL)(ChangeEvent(ITEMS, "t", None, None, 1, 1), [ITEM], dirty)
    assert (dirty.all_roots, dirty.root_gone) == (True, False)
    Resolve(MODEL)(ChangeEvent(ORDERS, "t", None, None, 1, 1), [ROOT], dirty)
    assert (dirty.all_roots, dirty.root_gone) == (True, True)


def test_an_event_without_the_linking_column_is_fatal() -> None:
    with pytest.raises(Fatal, match="lacks the column 'order_id'"):
        Resolve(MODEL)(item("c", None, {"id": 1}), [ITEM], Dirty())


def test_hazard_02_an_update_without_the_old_row_that_it_should_tell() -> None:
    moved = item("u", None, {"order_id": 2})
    assert not Resolve(MODEL).lacks_old_row(moved)  # an index identity leaves it out if its columns are the same
    resolve = Resolve(replace(MODEL, occurrences=(ROOT, replace(ITEM, needs_before=True))))
    assert resolve.lacks_old_row(moved)
    assert not resolve.lacks_old_row(item("u", {"order_id": 1}, {"order_id": 2}))
    assert not resolve.lacks_old_row(item("c", None, {"order_id": 2}))
    assert not resolve.lacks_old_row(item("d", {"order_id": 2}, None))
    assert not resolve.lacks_old_row(ChangeEvent(ORDERS, "u", None, {"id": 1, "status": "x"}, 1, 1))


def test_event_values_become_the_text_of_their_type() -> None:
    assert text(5, "bigint") == "5"
    assert text(5, "numeric") == text(5, "text") == "5", "of before the column was widened"
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


# -- document ---------------------------------------------------------------------------------------


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_ids_give_their_key_back(parts: list[str]) -> None:
    key = tuple(parts)
    assert document.parse_id(document.document_id(key), len(key)) == key


@given(st.lists(st.text("a|\\"), min_size=2, max_size=2), st.lists(st.text("a|\\"), min_size=2, max_size=2))
def test_no_two_keys_share_an_id(left: list[str], right: list[str]) -> None:
    same = document.document_id(tuple(left)) == document.document_id(tuple(right))
    assert same == (left == right)


def test_an_id_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="3 columns"):
        document.parse_id("a|b", 3)


def test_hazard_25_equal_keys_with_other_text_are_deleted() -> None:
    batch = document.batch([Row("1.0", "1.00", b"{}"), Row("1.00", "1.00", b"{}"), Row("2", None, None)], 9)
    assert batch.upserts == {"1.00": b"{}"}
    assert sorted(batch.deletes) == ["1.0", "2"]


def test_a_row_that_where_excludes_is_deleted() -> None:
    assert document.batch([Row("1", "1", None)], 9).deletes == ["1"]


# -- offsets and lag --------------------------------------------------------------------------------


def test_offsets_are_due_after_the_interval_and_taken_once() -> None:
    offsets = Offsets(1.0)
    assert not offsets.due(100.0)
    offsets.acknowledged([Position("t", 0, 4), Position("t", 0, 5), Position("t", 1, 0)], 10.0)
    assert not offsets.due(10.9)
    assert offsets.due(11.0)
    assert offsets.take() == {("t", 0): 6, ("t", 1): 1}
    assert offsets.take() == {}
    assert not offsets.due(99.0)


def test_lag_is_the_age_of_the_oldest_waiting_change() -> None:
    lag = Lag()
    lag.update({("t", 0): (0, 10), ("t", 1): (0, 0)}, 1_000)
    assert lag.records == 10
    assert lag.seconds(3_000) == 2.0, "nothing polled yet: since it was seen"
    lag.acknowledged(Position("t", 0, 4), 2_500)
    lag.polled(Position("t", 0, 9), 2_600)
    lag.update({("t", 0): (10, 10), ("t", 1): (0, 0)}, 3_000)
    assert lag.records == 5, "polled but not settled counts"
    assert lag.seconds(3_000) == 0.4
    lag.idle({("t", 0): (10, 10), ("t", 1): (0, 0)})
    lag.update({("t", 0): (10, 10), ("t", 1): (0, 0)}, 8_000)
    assert (lag.records, lag.seconds(9_000)) == (0, 0.0)
    lag.update({("t", 0): (10, 11), ("t", 1): (0, 0)}, 9_000)
    assert lag.seconds(9_000) == 1.0, "not since the last change, hours ago"


def test_a_change_that_came_late_is_as_old_as_its_commit() -> None:
    """The connector did not deliver for a minute: what it sends is a minute old, though nothing waited."""
    lag = Lag()
    lag.update({("t", 0): (5, 5)}, 100_000)
    lag.polled(Position("t", 0, 6), 40_000)
    lag.update({("t", 0): (7, 7)}, 100_100)
    assert lag.seconds(100_100) == 60.1
    lag.acknowledged(Position("t", 0, 6), 99_000)
    lag.update({("t", 0): (7, 7)}, 100_200)
    assert lag.seconds(100_200) == 0.0


def test_a_partition_of_rare_changes_has_no_lag_from_the_last_of_them() -> None:
    """Others are busy all the time, so that the lane is never idle."""
    lag = Lag()
    lag.acknowledged(Position("t", 0, 0), 1_000)
    lag.update({("t", 0): (1, 1), ("t", 1): (0, 9)}, 60_000)
    lag.polled(Position("t", 1, 8), 60_000)
    lag.update({("t", 0): (1, 2), ("t", 1): (9, 9)}, 60_100)
    assert lag.seconds(60_100) == 0.1


def test_a_partition_that_comes_back_has_no_lag_from_before() -> None:
    lag = Lag()
    lag.update({("t", 0): (0, 1)}, 1_000)
    lag.update({}, 2_000)
    assert lag.seconds(50_000) == 0.0
    lag.update({("t", 0): (0, 1)}, 60_000)
    assert lag.seconds(60_500) == 0.5


def test_a_new_read_model_is_not_late_for_what_was_there_before_it() -> None:
    """Found: 594.8 s for one that was 10 s old, because it looks ten minutes back for open transactions."""
    lag = Lag(floor_ms=600_000)
    lag.polled(Position("t", 0, 9), 15_200)
    lag.update({("t", 0): (10, 10)}, 610_000)
    assert lag.seconds(610_000) == 10.0


def test_an_unfinished_fan_out_is_lag_from_its_cause_s_commit() -> None:
    """Found: 5 customers renamed, 32,000 documents stale for 14 s, and a lag of 0.0."""
    lag = Lag(items=["w"])
    lag.update({("w", 0): (0, 16), ("w", 1): (0, 16)}, 1_000)
    assert lag.seconds(1_000) == 0.0, "of work nothing is known before it is polled"
    lag.polled(Position("w", 0, 7), 500)
    lag.update({("w", 0): (8, 16), ("w", 1): (0, 16)}, 3_000)
    assert lag.seconds(3_000) == 2.5
    lag.acknowledged(Position("w", 0, 7), 0)
    lag.update({("w", 0): (8, 16), ("w", 1): (16, 16)}, 5_000)
    assert lag.seconds(5_000) == 4.5, "the next is of the same fan-out"
    lag.idle({("w", 0): (16, 16), ("w", 1): (16, 16)})
    lag.update({("w", 0): (16, 16), ("w", 1): (16, 16)}, 6_000)
    assert (lag.records, lag.seconds(6_000)) == (0, 0.0)


def test_work_of_no_change_is_no_lag() -> None:
    """A backfill's range, and a sweep that waits for its time and is put back again and again."""
    lag = Lag(items=["w"])
    lag.polled(Position("w", 0, 0), 500)
    lag.acknowledged(Position("w", 0, 0), 0)
    for at in range(1, 100):
        lag.polled(Position("w", 0, at), 0)
        lag.update({("w", 0): (at + 1, at + 2)}, 1_000 * at)
        assert lag.seconds(1_000 * at) == 0.0
        lag.acknowledged(Position("w", 0, at), 0)
