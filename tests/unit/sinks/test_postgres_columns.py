"""The columns of the PostgreSQL sink: derived and declared types, unusable names, and how documents read back."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from syncer import sinks
from syncer.declaration.compile import Field
from syncer.document import Batch, Outcome
from syncer.errors import Fatal
from syncer.operations.comparison import same
from syncer.sinks.postgres import columns
from syncer.sinks.postgres.columns import Canonical
from syncer.sinks.postgres.settings import IndexColumn, Settings
from syncer.sinks.postgres.statements import create_indexes
from syncer.sinks.postgres.writer import MAX_ID, chunks_of

PAGE = Path(__file__).parents[3] / "docs" / "postgres-sink.md"
FIELDS = (
    Field("id", "integer", many=False),
    Field("placed at", "timestamp with time zone", many=False),
    Field("total", "numeric", many=False),
    Field("tags", "text", many=True),
    Field("lines", "object", many=True, fields=(Field("n", "integer", many=False),)),
)


def problems(**block: Any) -> list[sinks.Problem]:
    return sinks.check("postgres", {"table": "read.orders", **block}, FIELDS)


def test_each_field_gets_the_type_of_its_values_and_nested_ones_jsonb() -> None:
    found = sinks.derived("postgres", {"table": "read.orders", "columns": {"total": "NUMERIC( 12, 2 )"}}, FIELDS)
    assert found["columns"] == {
        "id": "bigint",
        "placed at": "timestamp with time zone",
        "total": "numeric(12,2)",
        "tags": "jsonb",
        "lines": "jsonb",
    }


@pytest.mark.parametrize(
    ("given", "type"),
    [("int8", "bigint"), ("timestamptz", "timestamp with time zone"), ("Text [ ]", "text[]"), ("int4[]", "integer[]")],
)
def test_declared_types_have_their_usual_short_names(given: str, type: str) -> None:
    assert columns.declared(given) == type


@pytest.mark.parametrize(
    ("name", "type"), [("id", "text"), ("total", "double precision"), ("tags", "uuid[]"), ("lines", "text[]")]
)
def test_a_type_that_would_change_values_is_refused_with_those_that_fit(name: str, type: str) -> None:
    [problem] = problems(columns={name: type})
    assert f"a column of type {type} cannot hold" in problem.what and problem.hint.startswith("one of: ")
    assert problem.block == ("columns", name)
    assert problems(columns={name: problem.hint.removeprefix("one of: ").split(", ")[-1]}) == []


def test_unknown_fields_are_reported_with_the_nearest_name() -> None:
    [column] = problems(columns={"totl": "numeric"})
    assert column.hint == "did you mean total?" and column.block == ("columns", "totl")
    [index] = problems(indexes=[{"columns": ["id", "placed at desc nulls last"], "include": ["totall"]}])
    assert index.hint == "did you mean total?" and index.block == ("indexes", 0, "include", 0)


@pytest.mark.parametrize("name", ["_id", "_version", "_deleted_at", "xmin", "", "x" * 64])
def test_a_name_that_no_column_can_have_is_refused(name: str) -> None:
    [problem] = sinks.check("postgres", {"table": "read.orders"}, [Field(name, "text", many=False)])
    assert problem.field == (name,) and problem.hint == "rename the field"


@pytest.mark.parametrize("table", ["orders", "Read.orders", "pg_catalog.orders", "read.a.b", "read." + "x" * 57])
def test_the_view_has_a_schema_and_leaves_room_for_the_number(table: str) -> None:
    with pytest.raises(Fatal, match="table"):
        sinks.check("postgres", {"table": table}, FIELDS)


def test_unique_indexes_cannot_be_declared() -> None:
    with pytest.raises(Fatal, match="unique"):
        problems(indexes=[{"columns": ["id"], "unique": True}])


def test_indexes_leave_out_deleted_documents() -> None:
    assert IndexColumn.parse("placed at  desc nulls last") == IndexColumn("placed at", "DESC NULLS LAST")
    assert IndexColumn.parse("description") == IndexColumn("description", "")
    block = {"columns": ["id", "placed at DESC"], "include": ["total"]}
    declared, own = create_indexes("t", Settings.model_validate({"table": "a.b", "indexes": [block]}).indexes)
    assert declared == (
        'CREATE INDEX ON t USING btree ("id", "placed at" DESC) INCLUDE ("total") WHERE "_deleted_at" IS NULL'
    )
    assert own == 'CREATE INDEX ON t ("_deleted_at") WHERE "_deleted_at" IS NOT NULL'


def test_canonical_documents_have_every_column_and_every_digit() -> None:
    canonical = Canonical({"a": "numeric", "b": "jsonb", "c": "numeric(5,2)", "d": "text"})
    body = b'{"b":{"y":1e3,"x":[-1.50,1E-7]},"a":12345678901234567890.10,"c":0.125,"other":1}'
    text = canonical.text(body)
    assert text is not None and b"12345678901234567890.10" in text
    assert json.loads(text, parse_float=Decimal) == {
        "a": Decimal("12345678901234567890.10"),
        "b": {"y": 1000, "x": [Decimal("-1.5"), Decimal("1e-7")]},
        "c": Decimal("0.13"),
        "d": None,
    }
    assert canonical.text(text) == text and same(text, canonical.text(text))
    for refused in (b"[1]", b'{"d":"\\u0000"}', b'{"b":{"\\u0000":[]}}'):
        assert canonical.text(refused) is None


def test_the_page_shows_the_types_of_every_field() -> None:
    section = PAGE.read_text("utf-8").partition("## Columns and types")[2].partition("\n## ")[0]
    shown = set()
    for line in re.findall(r"(?m)^\| (`.*) \|$", section):
        fields, derived, others = (cell.strip() for cell in line.split("|"))
        for type_ in re.findall("`([^`]+)`", fields):
            first, *rest = columns.choices(Field("f", type_, many=False))
            assert derived in (f"`{first}`", "the same" if first == type_ else "")
            assert set(re.findall("`([^`]+)`", others)) - {"numeric(p,s)"} == set(rest)
            shown.add(type_)
    assert {type_ for type_, found in columns._TYPES.items() if found[0] != "jsonb"} == shown


def test_outgrown_columns_are_named() -> None:
    actual = {"id": "integer", "placed at": "timestamp with time zone", "total": "bigint", "tags": "text[]"}
    assert columns.outgrown(actual, FIELDS) == [
        "total: the column has the type bigint, which cannot hold all numeric values",
        "lines: the table has no such column",
    ]


def test_writes_are_sorted_and_limited_and_impossible_ids_are_counted() -> None:
    upserts = {f"k{n}": b"{}" for n in range(1500, 0, -1)} | {"": b"{}", "x" * (MAX_ID + 1): b"{}", "a\0": b"{}"}
    out = Outcome()
    chunks = list(chunks_of(Batch(1, upserts, ["", "a", "x" * (MAX_ID + 1)]), out))
    ids = [write.id for chunk in chunks for write in chunk]
    assert ids == sorted(ids) and len(ids) == 1501 and [len(chunk) for chunk in chunks] == [1000, 501]
    assert (out.deleted, len(out.rejected)) == (2, 3)
    large = {str(n): b'{"a":"' + b"x" * (1 << 20) + b'"}' for n in range(8)}
    assert [len(chunk) for chunk in chunks_of(Batch(1, large, []), out)] == [3, 3, 2]
