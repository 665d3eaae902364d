"""Stage 2: bytes become change events and work items, or a `Reject` that names the record."""

from __future__ import annotations

import re

import orjson
import pytest

from syncer.errors import Reject
from syncer.events import ChangeEvent, WorkItem
from syncer.pipeline import decode
from tests.unit.pipeline.examples import AT, ITEMS, event


def test_an_event_with_a_schema_decodes_like_one_without() -> None:
    plain = event(after={"id": 1})
    wrapped = orjson.dumps({"schema": {}, "payload": orjson.loads(plain)})
    assert decode.change(AT, plain) == decode.change(AT, wrapped)
    assert decode.change(AT, plain) == ChangeEvent(ITEMS, "u", None, {"id": 1}, 7, 1000)


def test_an_event_of_a_connector_snapshot_has_no_transaction_id() -> None:
    assert decode.change(AT, event("r", after={"id": 1})) == ChangeEvent(ITEMS, "r", None, {"id": 1}, None, 1000)


@pytest.mark.parametrize("value", [None, event("m")])
def test_tombstones_and_other_operations_are_ignored(value: bytes | None) -> None:
    assert decode.change(AT, value) is None


@pytest.mark.parametrize("value", [b"\x00avro", b"[]", b"{}", b'{"op":"u"}', b'{"op":"u","source":5}'])
def test_a_record_that_cannot_be_decoded_names_its_position(value: bytes) -> None:
    with pytest.raises(Reject, match="cannot read a change event") as error:
        decode.change(AT, value)
    assert "shop.public.items, partition 0, offset 7" in str(error.value)


def test_a_work_item_decodes_to_itself() -> None:
    for one in (
        WorkItem("keys", "fan-out", keys=(("1", "a|b"), ("2", ""))),
        WorkItem("range", "backfill", "r1", low=None, high=("9", "1"), seconds=0.5),
        WorkItem("sweep", "truncate", not_before_ms=5, committed_ms=1_700_000_000_123),
    ):
        assert decode.work(AT, decode.encode_item(one), 2) == one


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
def test_an_invalid_work_item_is_rejected(value: bytes, why: str) -> None:
    with pytest.raises(Reject, match="cannot read a work item") as error:
        decode.work(AT, value, 1)
    assert re.search(why, error.value.why)
