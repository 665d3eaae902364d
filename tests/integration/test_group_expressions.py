"""Group expressions that no index can contain: `syncer check` agrees with CREATE INDEX, and advises another one."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
import yaml

from syncer.checks import Finding, check_model
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse, tables
from syncer.postgres.catalog import load
from syncer.postgres.mutable import read_mutable
from tests.harness import Database

TABLES = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    """CREATE TABLE readings (
        id bigint PRIMARY KEY, device_id int NOT NULL, taken_at timestamptz NOT NULL, at timestamp NOT NULL,
        day date NOT NULL, kind text NOT NULL, value numeric NOT NULL, mood mood NOT NULL)""",
    "ALTER TABLE readings REPLICA IDENTITY FULL",
    """CREATE TABLE parts (id bigint, taken_at timestamptz NOT NULL, PRIMARY KEY (id, taken_at))
         PARTITION BY RANGE (taken_at)""",
    "CREATE TABLE parts_1 PARTITION OF parts DEFAULT",
)
EXPRESSIONS = [
    "taken_at::date",
    "taken_at::text",
    "date_trunc('day', taken_at)",
    "date_trunc('day', taken_at)::text",
    "date_trunc('day', taken_at, 'Europe/Berlin')",
    "date_trunc('hour', taken_at at time zone 'Europe/Berlin')",
    "(taken_at at time zone 'UTC')::date",
    "extract(hour from taken_at)::int",
    "extract(hour from at)::int",
    "extract(year from day)::int",
    "to_char(taken_at, 'YYYY-MM')",
    "to_char(at, 'YYYY-MM')",
    "to_char(device_id, '000')",
    "at::date",
    "at::text",
    "day::text",
    "date_trunc('month', at)",
    "(at + interval '1 day')::date",
    "(taken_at + interval '1 day') at time zone 'UTC'",
    "device_id || '-' || kind",
    "device_id::text || kind",
    "concat(device_id, kind)",
    "format('%s', kind)",
    "lower(kind)",
    "left(kind, 1)",
    "kind || taken_at",
    "md5(kind)",
    "device_id % 100",
    "case when device_id > 5 then 'big' else kind end",
    "round(value, 2)::text",
    "mood::text",
    "value::bigint",
    "device_id in (1, 2)",
]
ROOT = Path(__file__).parents[2]


def compiled(database: Database, group: dict[str, str], table: str = "readings") -> tuple[Compiled, list[Finding]]:
    """Returns a grouped read model and what `syncer check` finds in its groups."""
    found = {"table": table, "group": group, "nulls": "drop"}
    text = yaml.safe_dump(
        {"name": "m", "root": found, "document": {"n": "count(*)"}, "sink": {"memory": {}}}, sort_keys=False
    )
    model = parse(text, "m.yaml")
    with database.connect() as session:
        catalog = load(session, tables(model))
        made = compile(model, catalog)
        every = check_model("m.yaml", made, catalog, mutable=read_mutable(session, made))
    return made, [one for one in every if one.code.startswith("group-")]


def accepted(database: Database, table: str, expression: str) -> bool:
    """Returns whether PostgreSQL creates an index on an expression."""
    try:
        database.execute(f"CREATE INDEX tried ON {table} (({expression}))")
    except psycopg.errors.InvalidObjectDefinition:
        return False
    database.execute("DROP INDEX tried")
    return True


def test_the_check_agrees_with_create_index(database: Database) -> None:
    database.execute(*TABLES)
    wrong = []
    for expression in EXPRESSIONS:
        made, _ = compiled(database, {"g": expression})
        with database.connect() as session:
            mutable = read_mutable(session, made)
        [group] = made.group
        if (group.sql in mutable) == accepted(database, "readings", expression):
            wrong.append(expression)
    assert wrong == []
    assert {accepted(database, "readings", one) for one in EXPRESSIONS} == {True, False}


def test_the_groups_of_examples_and_documentation_can_be_indexed(database: Database) -> None:
    database.execute(*TABLES)
    files = [*(ROOT / "readmodels").rglob("*.yaml"), *(ROOT / "docs").glob("*.md")]
    lines = [
        line
        for path in files
        for line in re.findall(r"^root: (\{table: .*, group: .*\})$", path.read_text(), re.MULTILINE)
    ]
    assert len(lines) >= 2
    for line in lines:
        groups = yaml.safe_load(line)["group"]
        for finding in compiled(database, groups)[1]:
            assert finding.code == "group-index"
            database.execute(finding.fix)
        assert compiled(database, groups)[1] == []


def test_a_partitioned_table(database: Database) -> None:
    database.execute(*TABLES)
    _, [found] = compiled(database, {"g": "extract(hour from taken_at)::int"}, "parts")
    assert found.severity == "error" and found.code == "group-expression"
    _, [found] = compiled(database, {"g": "extract(hour from taken_at at time zone 'UTC')::int"}, "parts")
    assert found.code == "group-index"


@pytest.mark.parametrize(
    ("expression", "part", "advice"),
    [
        ("extract(hour from taken_at)::int", "EXTRACT(HOUR FROM taken_at)", "(taken_at AT TIME ZONE 'UTC')"),
        (
            "date_trunc('day', taken_at, 'Asia/Tokyo')::date",
            "DATE_TRUNC('day', taken_at, 'Asia/Tokyo')",
            "'Asia/Tokyo'",
        ),
        ("to_char(taken_at, 'YYYY')", "TO_CHAR(taken_at, 'YYYY')", "use date_trunc(…) or extract(… from …)"),
        ("concat(kind, device_id)", "CONCAT(kind, device_id)", "use || instead"),
        ("kind || day::text", "CAST(day AS TEXT)", "group g by another expression"),
        ("mood::text", "CAST(mood AS TEXT)", "group g by another expression"),
    ],
)
def test_the_finding_names_the_part_and_the_advice_works(
    database: Database, expression: str, part: str, advice: str
) -> None:
    database.execute(*TABLES)
    _, [found] = compiled(database, {"device_id": "device_id", "g": expression})
    assert (found.severity, found.code) == ("error", "group-expression")
    assert found.what == f"the group g ({expression}) is not immutable, because of {part}"
    first, last = found.fix.splitlines()
    assert advice in first and last == "or group by a column that the application or a trigger fills"
    if first.startswith("g: "):
        _, [again] = compiled(database, {"device_id": "device_id", "g": first.removeprefix("g: ")})
        assert again.code == "group-index" and again.fix.startswith("CREATE INDEX")
        database.execute(again.fix)
        assert compiled(database, {"device_id": "device_id", "g": first.removeprefix("g: ")})[1] == []


def test_an_index_on_the_column_serves_an_expression_that_no_index_can_contain(database: Database) -> None:
    database.execute(*TABLES)
    groups = {"device_id": "device_id", "hour": "date_trunc('hour', taken_at)"}
    _, [found] = compiled(database, groups)
    assert found.code == "group-index" and found.fix.endswith("(device_id, taken_at);")
    database.execute(found.fix)
    assert compiled(database, groups)[1] == []


def test_of_two_times_the_one_that_no_index_can_contain_has_the_column(database: Database) -> None:
    database.execute(*TABLES)
    groups = {"of_month": "date_trunc('month', at)", "of_day": "date_trunc('day', taken_at)"}
    made, found = compiled(database, groups)
    assert [one.code for one in found] == ["group-index"] * len(found)
    for one in found:
        database.execute(one.fix)
    assert compiled(database, groups)[1] == [] and len(made.group) == 2


def test_a_small_table_needs_no_index(database: Database) -> None:
    database.execute(*TABLES, "INSERT INTO parts SELECT n, now() FROM generate_series(1, 9) n", "ANALYZE parts")
    [found] = compiled(database, {"g": "extract(hour from taken_at)::int"}, "parts")[1]
    assert (found.severity, found.code) == ("note", "group-expression")
