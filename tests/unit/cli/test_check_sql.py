"""`syncer check --sql`: the statements that fix findings, without indexes that another one makes unnecessary."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncer.checks import Finding, check_model
from syncer.checks.finding import NewIndex
from syncer.cli.check import script
from syncer.cli.check_report import CheckReport
from syncer.declaration.catalog import Catalog, Index, SortColumn
from syncer.declaration.compile import compile
from syncer.declaration.model import parse
from syncer.events import TableName
from tests.harness.catalogs import catalog, table

T, U = TableName("public", "t"), TableName("public", "u")
TABLES = catalog(
    table("readings", "id bigint key, device_id int not, taken_at timestamptz not, kind text", full=True),
    table("devices", "id int key, name text", full=True),
)
HOURS = """
name: hours
root: {table: readings, group: {device_id: device_id, hour: "date_trunc('hour', taken_at)"}}
relations: {device: {one: devices, on: {id: device_id}}}
document: {device: device.name, n: count(*)}
sink: {memory: {}}
"""
DEVICES = """
name: devices
root: {table: devices}
document: {name: name, readings: {many: readings, on: {device_id: id}, value: kind, limit: 5}}
sink: {memory: {}}
"""
TOTALS = """
name: totals
root: {table: devices}
relations: {readings: {many: readings, on: {device_id: id}, partials: {by: id, size: 100}}}
document: {n: count(readings)}
sink: {memory: {}}
"""


def printed(*indexes: NewIndex) -> list[str]:
    findings = [Finding("warning", "no-index", "m", "missing", "", str(index), index) for index in indexes]
    return script(CheckReport({"Read model m": findings}))


def found(tables: Catalog, *declarations: str) -> list[str]:
    report = CheckReport()
    for number, text in enumerate(declarations):
        compiled = compile(parse(text, "m.yaml"), tables)
        report.findings[f"Read model {number}"] = check_model("m.yaml", compiled, tables)
    return script(report)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("short", "long"),
    [
        (NewIndex(T, ("a",)), NewIndex(T, ("a", "b"))),
        (NewIndex(T, ("a", "b")), NewIndex(T, ("a", "b", "c DESC"))),
        (NewIndex(T, ("(lower(a))",)), NewIndex(T, ("(lower(a))", "b"))),
        (NewIndex(T, ("a",), concurrently=False), NewIndex(T, ("a", "b"), concurrently=False)),
    ],
)
def test_the_longer_index_serves_both(short: NewIndex, long: NewIndex, *, reverse: bool) -> None:
    assert printed(*((long, short) if reverse else (short, long))) == [str(long)]


@pytest.mark.parametrize(
    "other",
    [
        NewIndex(U, ("a", "b")),
        NewIndex(T, ("b", "a")),
        NewIndex(T, ("a DESC", "b")),
        NewIndex(T, ("(lower(a))", "b")),
        NewIndex(T, ("a", "b"), "gin"),
    ],
)
def test_other_indexes_do_not(other: NewIndex) -> None:
    assert printed(NewIndex(T, ("a",)), other) == [str(NewIndex(T, ("a",))), str(other)]
    assert printed(NewIndex(T, ("a",), "gin"), NewIndex(T, ("a", "b"))) == [
        "CREATE INDEX CONCURRENTLY ON public.t USING gin (a);",
        "CREATE INDEX CONCURRENTLY ON public.t (a, b);",
    ]


def test_the_same_index_is_printed_once() -> None:
    assert printed(NewIndex(T, ("a", "b")), NewIndex(T, ("a", "b"))) == [str(NewIndex(T, ("a", "b")))]


def test_a_longer_index_that_is_not_printed_serves_nothing() -> None:
    short, long = NewIndex(T, ("a",)), NewIndex(T, ("a", "b"))
    findings = [
        Finding("warning", "no-index", "m", "missing", "", str(short), short),
        Finding("note", "no-index", "m", "missing", "", str(long), long),
    ]
    assert script(CheckReport({"Read model m": findings})) == [str(short)]


def test_read_models_that_share_a_table() -> None:
    """The link, the groups and the buckets begin with the same column."""
    statement = "CREATE INDEX CONCURRENTLY ON public.readings ({});"
    assert found(TABLES, HOURS) == [statement.format("device_id, taken_at")]
    assert found(TABLES, DEVICES) == [statement.format("device_id")]
    both = [statement.format(keys) for keys in ("device_id, taken_at", "device_id, id")]
    assert sorted(found(TABLES, DEVICES, HOURS, TOTALS)) == sorted(both)


def test_a_longer_index_that_exists_serves_each_of_them() -> None:
    readings = TABLES.tables[TableName("public", "readings")]
    for columns, served in (
        (("device_id", "taken_at", "kind"), [HOURS, DEVICES]),
        (("device_id", "id", "kind"), [DEVICES, TOTALS]),
    ):
        order = tuple(map(SortColumn, columns))
        longer = replace(readings, indexes=(*readings.indexes, Index("i", columns, False, False, columns, order)))
        assert found(Catalog({**TABLES.tables, readings.name: longer}), *served) == []
