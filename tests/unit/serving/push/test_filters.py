from __future__ import annotations

from typing import Any

import orjson
import pytest

from syncer.ports import DocumentWrite
from syncer.serving.push.change import Change
from syncer.serving.push.filters import MAX_CONDITIONS, MAX_KEYS, Condition, Filter

ORDER = {
    "id": 17,
    "status": "paid",
    "price": 2.5,
    "open": True,
    "note": None,
    "customer": {"country": "DE", "name": "a:b"},
    "items": [{"sku": "x", "tags": ["red", 5]}, {"sku": "y", "tags": []}],
}


def change(document: Any, key: str = "17") -> Change:
    body = None if document is None else orjson.dumps(document)
    return Change(DocumentWrite(0, 0, key, 1, body, 0))


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("status:paid", True),
        ("status:open", False),
        ("status:", False),
        ("id:17", True),
        ("id:17.0", True),
        ("id:18", False),
        ("id:nan", False),
        ("price:2.50", True),
        ("price:2", False),
        ("open:true", True),
        ("open:1", False),
        ("note:null", True),
        ("missing:null", False),
        ("customer.country:DE", True),
        ("customer.name:a:b", True),
        ("customer:DE", False),
        ("status.length:4", False),
        ("items.sku:y", True),
        ("items.sku:z", False),
        ("items.tags:red", True),
        ("items.tags:5", True),
    ],
)
def test_a_condition_compares_a_field_with_a_value(text: str, matches: bool) -> None:
    assert Condition.parse(text).matches(ORDER) is matches


def test_all_conditions_and_any_key_have_to_match() -> None:
    found = Filter.parse(["17", "18"], ["status:paid", "open:true"])
    assert found.op(change(ORDER)) == "upsert"
    assert found.op(change(ORDER, key="19")) is None
    assert found.op(change(ORDER | {"open": False})) == "left"
    assert found.op(change(None)) == "delete"
    assert Filter().op(change(ORDER)) == "upsert"


def test_text_that_is_no_json_matches_no_condition() -> None:
    broken = Change(DocumentWrite(0, 0, "1", 1, b"{", 0))
    assert Filter.parse([], ["status:paid"]).op(broken) == "left"


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ([], ["status"]),
        ([], [":paid"]),
        ([], ["a..b:1"]),
        ([""], []),
        (["k"] * (MAX_KEYS + 1), []),
        ([], ["a:b"] * (MAX_CONDITIONS + 1)),
    ],
)
def test_a_malformed_filter_is_refused(keys: list[str], where: list[str]) -> None:
    with pytest.raises(ValueError, match=r"is not field:value|is empty|more than"):
        Filter.parse(keys, where)
