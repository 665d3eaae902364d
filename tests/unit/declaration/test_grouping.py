"""Grouped roots: what is refused, the keys and look-ups, and the bounds of columns."""

# ruff: noqa: E501 - each case is one line

from __future__ import annotations

from dataclasses import replace

import pytest

from syncer.checks.model import KEY_TYPES
from syncer.declaration.catalog import Catalog, Column, Table
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.group_span import span_of
from syncer.declaration.model import parse
from syncer.declaration.sql_parser import parse as parse_expression
from syncer.declaration.sql_types import KEYABLE
from syncer.declaration.trace_sql import trace_sql
from syncer.errors import Fatal
from syncer.events import TableName
from tests.harness.catalogs import catalog, table

HOURS = """\
name: device_hours
root: {table: readings, group: {device_id: device_id, hour: "date_trunc('hour', taken_at, 'UTC')"}}
relations: {device: {one: devices, on: {id: device_id}}, place: {one: places, on: {id: place_id}}}
document:
  device_id: device_id
  hour: hour
  name: device.name
  readings: count(*)
  average: round(avg(value), 3)
sink: {memory: {}}
"""


def not_null(made: Table, *columns: str) -> Table:
    found = {name: replace(c, not_null=c.not_null or name in columns) for name, c in made.columns.items()}
    return replace(made, columns=found)


READINGS = not_null(
    table(
        "readings",
        "id bigint key, device_id int, taken_at timestamptz, at timestamp, day date, value numeric, place_id int,"
        " kind text, ratio float8, doc jsonb, pad character, span interval, zone text, mood public.mood, sum int",
        full=True,
    ),
    "device_id",
    "taken_at",
    "zone",
    "ratio",
    "value",
    "mood",
    "pad",
    "span",
    "doc",
)
TIMES = {"at": "timestamp without time zone"}
READINGS = replace(
    READINGS,
    columns={n: replace(c, type=TIMES[n], base=TIMES[n]) if n in TIMES else c for n, c in READINGS.columns.items()},
)
TABLES = catalog(
    READINGS,
    table("devices", "id int key, name text, owner_id int", full=True),
    table("places", "id int key, name text", full=True),
    enums={"public.mood": ("sad", "ok")},
)


def compiled(text: str = HOURS, tables: Catalog = TABLES) -> Compiled:
    return compile(parse(text, "m.yaml"), tables)


def grouped(expression: str, more: str = "") -> str:
    return f"name: m\nroot:\n  table: readings\n  group:\n    g: {expression}\n{more}document: {{n: count(*)}}\nsink: {{memory: {{}}}}\n"


def refused(text: str, tables: Catalog = TABLES) -> str:
    with pytest.raises(Fatal) as error:
        compiled(text, tables)
    return str(error.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "kind",
            "m.yaml:5: `kind` can be NULL, and a NULL is no key of a document\n  → write `nulls: drop` under `root`",
        ),
        ("kind", 'ALTER TABLE "public"."readings" ALTER "kind" SET NOT NULL'),
        ("lower(kind)", "m.yaml:5: `lower(kind)` can be NULL"),
        ("nullif(device_id, 1)", "can be NULL"),
        ("case when device_id > 1 then device_id end", "can be NULL"),
        (
            "value",
            "m.yaml:5: `value` has the type numeric, whose equal values can have several texts\n  → cast it to bigint",
        ),
        (
            "ratio",
            "m.yaml:5: the column ratio has the type double precision, which change events do not contain exactly\n  → group by a column of another type,",
        ),
        (
            "ratio",
            'group by a column of another type, or change this one: ALTER TABLE "public"."readings" ALTER "ratio" TYPE numeric',
        ),
        ("round(ratio)::bigint", "the column ratio has the type double precision, which change events do not contain"),
        ("device_id::float8", "has the type double precision, whose equal values can have several texts\n  → round it"),
        ("span", "the column span has the type interval, which change events do not contain exactly\n  → group by"),
        ("some text", "m.yaml:5: `some text` has a syntax error near 'text'\n  → a constant needs SQL quotes"),
        ("pad", "has the type character, whose equal values can have several texts\n  → cast it to text"),
        ("doc", "m.yaml:5: the column doc has the type jsonb, which cannot be compared between events and rows"),
        ("device_id / value", "has the type numeric"),
        ("date_trunc('day', taken_at, zone)", "m.yaml:5: the time zone zone of a group has to be a constant"),
        ("taken_at at time zone zone", "the time zone zone of a group has to be a constant"),
        ("timezone(zone, taken_at)", "the time zone zone of a group has to be a constant"),
        (
            "device.name",
            "m.yaml:5: `device.name` is a column of another table\n  → a row's group may depend only on the row",
        ),
        ("count(*)", "m.yaml:5: count() is not allowed in a filter, an order, a grouping"),
        (
            "devise_id",
            "m.yaml:5: public.readings has no column or relation 'devise_id' here\n  → did you mean 'device_id'?",
        ),
        ("\"'x'::text\"", "m.yaml:5: `'x'::text` depends on no column"),
        ("coalesce(mood, 'ok'::mood)", "is an enum\n  → group by the column itself"),
        ("device_id::regclass", "m.yaml:5: cannot cast to regclass"),
        ("device_id +", "m.yaml:5: `device_id +`"),
    ],
)
def test_each_mistake_in_a_group_is_reported_with_its_line(expression: str, message: str) -> None:
    text = grouped(expression, "relations: {device: {one: devices, on: {id: device_id}}}\n")
    assert message in refused(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hour: \"date_trunc", "value: \"date_trunc", "m.yaml:2: the group 'value' has the name of a column of public.readings"),
        ("group: {device_id: device_id, hour: \"date_trunc('hour', taken_at, 'UTC')\"}", "group: id", "m.yaml:2: 'group': must be a mapping\n  → write `group: {name: expression}`"),
        ("group: {", "nulls: skip, group: {", "m.yaml:2: 'nulls': must be 'drop'\n  → `drop` leaves out rows for which"),
        ("name: device_hours", "name: device_hours\nmin_interval: 5m", "m.yaml:2: 'min_interval': must be at most 1m (60 seconds)"),
        ("hour: \"date_trunc", "h.x: \"date_trunc", "m.yaml:2: 'h.x' cannot be the name of a group"),
        ("group: {device_id: device_id, hour: \"date_trunc('hour', taken_at, 'UTC')\"}", "nulls: drop", "`nulls` needs `group`"),
        ("  hour: hour", "  hour: taken_at", "m.yaml:6: `taken_at` can differ among the rows of a group\n  → use an aggregate, such as max(taken_at); group names are one of: device_id, hour"),
        ("  name: device.name", "  name: place.name", "m.yaml:7: `place.name` can differ among the rows of a group\n  → use an aggregate, such as max(place.name), or group by place_id, too"),
        ("  name: device.name", "  name: {one: places, on: {id: place_id}, value: name}", "m.yaml:7: `name` can differ among the rows of a group"),
        ("  name: device.name", "  name: {one: devices, on: {id: device_id}, when: place_id = 1, value: name}", "m.yaml:7: `name` can differ among the rows of a group\n  → use an aggregate, such as max(name), or group by device_id, place_id, too"),
        ("  name: device.name", "  name: {many: places, on: {id: place_id}, value: name}", "m.yaml:7: name leads to many rows, which a grouped root cannot use"),
        ("  name: device.name", "  name: {group_by: kind, value: count(*)}", "m.yaml:7: the field 'name' is of a kind that a grouped root cannot have"),
        ("  name: device.name", "  at: {object: {x: {one: devices, on: {id: device_id}, relations: {p: {many: places, on: {id: id}}}, value: name}}}", "m.yaml:7: at.x.p leads to many rows"),
        ("{one: places, on: {id: place_id}}", "{many: places, on: {id: place_id}}", "m.yaml:3: place leads to many rows"),
        ("round(avg(value), 3)", "avg(hour)", "m.yaml:9: public.readings has no column or relation 'hour'"),
        ("round(avg(value), 3)", "max(count(*))", "m.yaml:9: count() is not allowed in a filter"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_grouped_root_is_reported_with_its_line(old: str, new: str, message: str) -> None:
    assert old in HOURS
    assert message in refused(HOURS.replace(old, new, 1))


@pytest.mark.parametrize("aggregate", ["max(place.name)", "count(place.id)", "kind_count"])
def test_a_field_can_have_the_name_of_a_relation(aggregate: str) -> None:
    """Only a field that shows the relation itself has to be the same for all rows of the group."""
    text = HOURS.replace("  name: device.name", f"  place: {aggregate.replace('kind_count', 'count(kind)')}")
    assert [field.name for field in compiled(text).fields][2] == "place"
    shown = "  place: {one: places, on: {id: place_id}, value: name}"
    assert "`place` can differ among the rows" in refused(
        HOURS.replace(", place: {one: places, on: {id: place_id}}", "").replace("  name: device.name", shown)
    )


@pytest.mark.parametrize("expression", sorted(("round(device_id::float8)::bigint", "round(value)::bigint")))
def test_the_advice_for_rounded_values_works(expression: str) -> None:
    assert compiled(grouped(expression)).key == ("g",)


def test_every_column_that_a_group_can_use_can_be_a_key() -> None:
    """Otherwise, the advice of one command would be refused by the next one."""
    columns = {f"c{n}": Column(f"c{n}", type, type, True) for n, type in enumerate(sorted(KEYABLE - {"enum"}))}
    tables = replace(
        TABLES, tables={**TABLES.tables, READINGS.name: replace(READINGS, columns={**READINGS.columns, **columns})}
    )
    inexact = "which change events do not contain exactly"
    for name, column in columns.items():
        usable = column.base in KEY_TYPES
        assert usable or inexact in refused(grouped(f"{name} is null"), tables)
        assert not usable or compiled(grouped(f"{name} is null"), tables).key == ("g",)


def test_texts_that_are_equal_and_differ_are_refused() -> None:
    columns = dict(READINGS.columns)
    columns["kind"] = replace(columns["kind"], not_null=True, loose_collation=True)
    tables = replace(TABLES, tables={**TABLES.tables, READINGS.name: replace(READINGS, columns=columns)})
    assert "equal texts of kind can differ, because its collation is not deterministic" in refused(
        grouped("kind"), tables
    )
    assert compiled(grouped('kind COLLATE "C"'), tables).key == ("g",)


def test_a_generated_column_is_no_group() -> None:
    columns = dict(READINGS.columns)
    columns["sum"] = replace(columns["sum"], not_null=True, generated_from=("device_id",))
    tables = replace(TABLES, tables={**TABLES.tables, READINGS.name: replace(READINGS, columns=columns)})
    assert "the column sum is generated, and change events leave it out\n  → write its expression" in refused(
        grouped("sum"), tables
    )


@pytest.mark.parametrize("expression", ["kind", "lower(kind)", "nullif(kind, '')", "day", "place_id"])
def test_rows_with_a_null_can_be_left_out(expression: str) -> None:
    model = compiled(grouped(expression).replace("  group:", "  nulls: drop\n  group:"))
    assert model.table_uses[0].lookup and model.table_uses[0].lookup.nulls


@pytest.mark.parametrize("expression", ["coalesce(kind, 'none')", "coalesce(nullif(kind, ''), '(none)')", "device_id % 10", "mood", "mood::text", "device_id > 5", "case when kind = 'a' then 1 else 2 end", "extract(year from taken_at)::int", "round(value, 2)::text", "kind is null", "not coalesce(device_id > 5, false)"])  # fmt: skip
def test_an_expression_without_nulls_needs_no_option(expression: str) -> None:
    assert compiled(grouped(expression)).key == ("g",)


def test_the_key_is_the_tuple_of_group_expressions() -> None:
    model = compiled()
    assert (model.key, model.key_types) == (("device_id", "hour"), ("bigint", "timestamp with time zone"))
    assert model.root == TableName("public", "readings")
    root, device, place = model.table_uses
    assert root.is_root and root.lookup and root.lookup.columns == ("device_id", "taken_at")
    assert not root.lookup.nulls
    assert {"device_id", "taken_at", "value", "id"} <= root.used
    assert device.lookup and device.lookup.columns == ("id",) and "date_trunc" in (device.lookup.sql or "")
    assert place.lookup and "taken_at" in (place.lookup.sql or "")
    assert [field.name for field in model.fields] == ["device_id", "hour", "name", "readings", "average"]
    assert [field.type for field in model.fields][:4] == ["integer", "timestamp with time zone", "text", "bigint"]


@pytest.mark.parametrize("expression", ["zone", "coalesce(kind, 'none')", "upper(zone)"])
def test_a_document_shows_a_text_group_by_its_name(expression: str) -> None:
    text = f'name: m\nroot: {{table: readings, group: {{g: "{expression}"}}}}\n'
    text += "document: {shown: g, loud: upper(g) || '!', rows: count(*)}\nsink: {memory: {}}\n"
    assert [field.name for field in compiled(text).fields] == ["shown", "loud", "rows"]


def test_updates_of_a_grouped_row_need_the_old_row() -> None:
    """Otherwise the group that the row left would not be known."""
    assert compiled().table_uses[0].needs_before
    assert not compiled(grouped("id % 10")).table_uses[0].needs_before, "the identity always has the primary key"


def test_other_groups_are_another_declaration() -> None:
    hashes = {compiled(grouped(g)).hash for g in ("device_id", "id", "device_id % 10")}
    hashes.add(compiled(grouped("device_id", "where: value > 1\n")).hash)
    assert len(hashes) == 4
    wider = table("readings", "id bigint key, device_id text key", full=True)
    assert compiled(grouped("device_id"), catalog(wider)).hash not in hashes, "ids have another form"


def test_a_trace_leads_from_a_group_to_its_rows() -> None:
    model = parse(HOURS, "m.yaml")
    found = trace_sql(model, TABLES, compiled())
    root, device, _ = found.uses
    assert found.key.columns == ("device_id", "hour")
    assert root.key == ("id",) and not root.by_key and root.leading and "date_trunc" in (root.leading.sql or "")
    assert device.parent == "" and device.parent_link and device.parent_link.columns == ("device_id",)


@pytest.mark.parametrize(
    ("expression", "column", "before", "after"),
    [
        ("date_trunc('hour', taken_at, 'UTC')", "taken_at", 0, 1),
        ("date_trunc('hour', taken_at)", "taken_at", 0, 1),
        ("date_trunc('hour', taken_at, 'Asia/Kolkata')", "taken_at", 0, 1),
        ("date_trunc('day', taken_at, 'UTC')", "taken_at", 0, 24),
        ("date_trunc('day', taken_at, 'Europe/Berlin')", "taken_at", 32, 56),
        ("date_trunc('day', (taken_at at time zone 'Europe/Berlin'))", "taken_at", 16, 40),
        ("(taken_at at time zone 'UTC')::date", "taken_at", 0, 24),
        ("(at at time zone 'Asia/Tokyo')::date", "at", 16, 40),
        ("date_trunc('month', day)", "day", 0, 31 * 24),
        ("(date_trunc('MINUTE', at))", "at", 0, 1 / 60),
    ],
)
def test_an_expression_implies_bounds_of_its_column(expression: str, column: str, before: float, after: float) -> None:
    span = span_of(parse_expression(expression), READINGS)
    assert span and span.column == column
    seconds = [f"'{round(hours * 3600)} seconds'::pg_catalog.interval" for hours in (before, after)]
    assert span.before == (seconds[0] if before else "") and span.after == seconds[1]


@pytest.mark.parametrize("expression", ["taken_at", "date_trunc('decade', taken_at)", "date_trunc(kind, taken_at)", "date_trunc('day', taken_at at time zone 'UTC', 'UTC')", "date_trunc('day', value)", "extract(hour from taken_at)", "date_trunc('day', taken_at + '1 day')"])  # fmt: skip
def test_other_expressions_imply_none(expression: str) -> None:
    assert span_of(parse_expression(expression), READINGS) is None
