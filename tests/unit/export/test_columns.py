"""Fields as columns, and documents as rows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from syncer.declaration.compiled import Field
from syncer.errors import Fatal
from syncer.export.columns import DECIMAL, OWN, Rows, columns
from syncer.ports import DocumentWrite

TYPES = {
    "small": "smallint",
    "int": "integer",
    "big": "bigint",
    "exact": "numeric",
    "float": "double precision",
    "on": "boolean",
    "day": "date",
    "at": "timestamp with time zone",
    "local": "timestamp without time zone",
    "text": "text",
    "code": "uuid",
    "json": "jsonb",
    "any": "unknown",
}
FIELDS = [Field(name, type, many=False) for name, type in TYPES.items()]


def row(body: bytes | None, fields: list[Field] = FIELDS) -> dict[str, Any]:
    rows = Rows(columns(fields, "m"), "topic")
    rows.add(DocumentWrite(3, 7, "1|a", 281474976710656, body, 1000, 2, 500))
    return {name: value for name, [value] in rows.values().items()}


def test_the_type_of_a_column_follows_from_the_type_of_the_field() -> None:
    fields = [*FIELDS, Field("list", "bigint", many=True), Field("object", "object", False, (FIELDS[0],))]
    types = {one.name: (one.type, one.json) for one in columns(fields, "m")}
    assert types == {
        "small": ("short", False),
        "int": ("integer", False),
        "big": ("long", False),
        "exact": (DECIMAL, False),
        "float": ("double", False),
        "on": ("boolean", False),
        "day": ("date", False),
        "at": ("timestamp", False),
        "local": ("timestamp_ntz", False),
        "text": ("string", False),
        "code": ("string", False),
        "json": ("string", True),
        "any": ("string", True),
        "list": ("string", True),
        "object": ("string", True),
    }


def test_values_have_the_types_of_their_columns() -> None:
    body = (
        b'{"small":-32768,"int":1,"big":9223372036854775807,"exact":12345678901234567890.10,"float":0.1,"on":true,'
        b'"day":"2026-02-28","at":"2026-02-28T12:00:00.5+02:00","local":"2026-02-28T12:00:00","text":"\\u00e9",'
        b'"code":"c","json":"text","any":1.50}'
    )
    found = row(body)
    assert {name: found[name] for name in TYPES} == {
        "small": -32768,
        "int": 1,
        "big": 9223372036854775807,
        "exact": Decimal("12345678901234567890.10"),
        "float": 0.1,
        "on": True,
        "day": date(2026, 2, 28),
        "at": datetime(2026, 2, 28, 10, 0, 0, 500000, UTC),
        "local": datetime(2026, 2, 28, 12),  # noqa: DTZ001
        "text": "é",
        "code": "c",
        "json": '"text"',
        "any": "1.50",
    }
    assert {one.name: found[one.name] for one in OWN} == {
        "_id": "1|a",
        "_version": 281474976710656,
        "_deleted": False,
        "_generation": 2,
        "_committed_at": 500_000,
        "_written_at": 1_000_000,
        "_topic_id": "topic",
        "_partition": 3,
        "_offset": 7,
        "_other": None,
    }


def test_a_delete_has_no_values() -> None:
    found = row(None)
    assert found["_deleted"] and all(found[name] is None for name in TYPES)


@pytest.mark.parametrize(
    ("field", "value", "column"),
    [
        ("exact", b"0.1234567890123456785", Decimal("0.123456789012345678")),
        ("exact", b"123456789012345678901", None),
        ("exact", b'"NaN"', None),
        ("day", b'"infinity"', None),
        ("day", b'"0044-03-15 BC"', None),
        ("at", b'"infinity"', None),
        ("at", b'"2026-01-01T00:00:00"', None),
        ("at", b'"0001-01-01T00:00:00+15:00"', None),
        ("small", b"32768", None),
        ("int", b'"text"', None),
        ("on", b"1", None),
        ("unknown field", b'{"a":[1.10]}', None),
    ],
)
def test_a_value_that_misses_its_column_is_kept_as_json(field: str, value: bytes, column: Any) -> None:
    found = row(b'{"text":"x","' + field.encode() + b'":' + value + b"}")
    assert (found["text"], found.get(field)) == ("x", column)
    assert found["_other"] == f'{{"{field}":{value.decode()}}}'


def test_special_floats_and_nulls() -> None:
    assert row(b'{"float":"-Infinity"}')["float"] == float("-inf")
    found = row(b'{"float":null,"exact":null,"json":null,"any":null}')
    assert (found["float"], found["exact"], found["json"], found["any"], found["_other"]) == (None,) * 5


FOREIGN = [
    *(b"[1]", b"no JSON", b"\xff"),
    *(b'{"text":"\xff"}', b'{"json":"\xff"}', b'{"\xff":1}', b'{"unknown field":"\xff"}'),
    b'{"json":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", FOREIGN, ids=range(len(FOREIGN)))
def test_a_record_of_another_program_is_kept_as_text(body: bytes) -> None:
    found = row(body)
    assert not found["_deleted"] and found["text"] is None
    assert orjson.loads(found["_other"]) == body.decode(errors="replace")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["_version"], "a column of the syncer"),
        (["Total", "total"], "the field 'Total'"),
        (["a b"], "cannot contain ' '"),
    ],
)
def test_a_name_that_cannot_be_a_column_is_refused(names: list[str], why: str) -> None:
    with pytest.raises(Fatal) as caught:
        columns([Field(name, "text", many=False) for name in names], "orders")
    assert why in caught.value.why and "syncer resync orders" in caught.value.hint
