"""Indexes of grouped roots: which serve groups, which statements are printed, and how PostgreSQL writes expressions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncer.checks import Finding
from syncer.checks.groups import canonical, check_groups
from syncer.checks.model import check_model, needed_columns
from syncer.declaration.catalog import Catalog, Index, Leaf, Table
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse
from tests.harness.catalogs import catalog, table

HOUR = "date_trunc('hour', taken_at, 'UTC')"


def readings(*indexes: str, rows: int = 0, identity: tuple[str, ...] = ()) -> Catalog:
    """indexes: the keys of each, as PostgreSQL writes them, separated by `; `."""
    made = table("readings", "id bigint key, device_id int key, taken_at timestamptz key, kind text key", full=True)
    found = [Index("pkey", ("id",), True, False, ("id",))]
    found += [Index(f"i{n}", (), False, False, tuple(text.split("; "))) for n, text in enumerate(indexes)]
    changed: Table = replace(made, primary_key=("id",), indexes=tuple(found), rows_estimate=rows)
    if identity:
        changed = replace(changed, leaves=(Leaf(1, made.name, "index", identity),))
    return catalog(changed)


def model(tables: Catalog, *groups: str, partials: str = "") -> Compiled:
    given = ", ".join(f'g{n}: "{text}"' for n, text in enumerate(groups))
    divided = f", partials: {{{partials}}}" if partials else ""
    text = f"name: m\nroot: {{table: readings, group: {{{given}}}{divided}}}\n"
    return compile(parse(f"{text}document: {{n: count(*)}}\nsink: {{memory: {{}}}}\n", "m.yaml"), tables)


def findings(tables: Catalog, *groups: str) -> list[Finding]:
    compiled = model(tables, *groups)
    return list(check_groups("m.yaml", compiled, tables.tables[compiled.root]))


@pytest.mark.parametrize(
    ("groups", "index"),
    [
        (("device_id", HOUR), "device_id; taken_at"),
        (("device_id", HOUR), "device_id; date_trunc('hour'::text, taken_at, 'UTC'::text)"),
        (("device_id", HOUR), "device_id; taken_at; kind"),
        (("device_id",), "device_id"),
        (("kind", "device_id"), "kind; device_id; id"),
        (("lower(kind)",), "lower(kind)"),
        ((HOUR,), "taken_at"),
        (("device_id % 100",), "(device_id % 100)"),
    ],
)
def test_one_index_can_serve_single_groups_and_ranges(groups: tuple[str, ...], index: str) -> None:
    assert findings(readings(index), *groups) == []


@pytest.mark.parametrize(
    ("groups", "indexes", "fixes"),
    [
        (("device_id", HOUR), [], ["device_id, taken_at"]),
        (("device_id", HOUR), ["taken_at; device_id"], ["device_id, taken_at"]),
        (("device_id", HOUR), ["device_id"], ["device_id, taken_at"]),
        (("kind", "device_id"), ["device_id; kind"], ["kind, device_id"]),
        ((HOUR, "device_id"), [], ["device_id, taken_at", "taken_at"]),
        ((HOUR, "device_id"), ["taken_at"], ["device_id, taken_at"]),
        (("lower(kind)",), ["kind"], ['(pg_catalog.lower("kind"))']),
        (("device_id", HOUR, "kind"), ["device_id; kind; taken_at"], ["device_id, taken_at"]),
    ],
)
def test_a_missing_index_is_an_error_with_its_statement(
    groups: tuple[str, ...], indexes: list[str], fixes: list[str]
) -> None:
    found = findings(readings(*indexes), *groups)
    assert [(f.severity, f.code) for f in found] == [("error", "group-index")] * len(fixes)
    assert [f.fix for f in found] == [f"CREATE INDEX CONCURRENTLY ON public.readings ({fix});" for fix in fixes]


BY_ID, BY_TIME = "by: id, size: 100", "by: taken_at, size: 1m"


@pytest.mark.parametrize(
    ("groups", "partials", "index"),
    [
        (("device_id", HOUR), BY_ID, "device_id; id"),
        (("device_id", HOUR), BY_TIME, "device_id; taken_at"),
        (("device_id", HOUR), BY_ID, "device_id; date_trunc('hour'::text, taken_at, 'UTC'::text); id"),
        (("kind", "device_id"), BY_TIME, "device_id; kind; taken_at; id"),
        (("lower(kind)",), BY_TIME, "lower(kind); taken_at"),
        ((HOUR,), BY_ID, "id"),
    ],
)
def test_an_index_leads_to_one_bucket_of_a_group(groups: tuple[str, ...], partials: str, index: str) -> None:
    assert divided_findings(readings(index), *groups, partials=partials) == []


@pytest.mark.parametrize(
    ("groups", "partials", "index", "fix"),
    [
        (("device_id", HOUR), BY_ID, "device_id; taken_at", "device_id, id"),
        (("device_id", HOUR), BY_ID, "id; device_id", "device_id, id"),
        (("lower(kind)",), BY_TIME, "taken_at", '(pg_catalog.lower("kind")), taken_at'),
        (("device_id",), BY_TIME, "device_id; kind; taken_at", "device_id, taken_at"),
    ],
)
def test_a_bucket_of_a_group_needs_an_index(groups: tuple[str, ...], partials: str, index: str, fix: str) -> None:
    [found] = divided_findings(readings(index), *groups, partials=partials)
    assert (found.severity, found.code) == ("error", "partials-index")
    assert found.fix == f"CREATE INDEX CONCURRENTLY ON public.readings ({fix});"


def divided_findings(tables: Catalog, *groups: str, partials: str) -> list[Finding]:
    found = check_model("m.yaml", model(tables, *groups, partials=partials), tables)
    return [finding for finding in found if finding.code == "partials-index"]


def test_a_bucket_may_be_wider_than_its_group() -> None:
    """The bounds of the hour remain, because the bucket bounds the same column. Otherwise, only the bucket's do."""
    wide = model(readings(), "device_id", HOUR, partials="by: taken_at, size: 1d").partials
    narrow = model(readings(), "device_id", HOUR, partials=BY_ID).partials
    assert wide is not None and narrow is not None
    assert wide.parts.render.count("'3600 seconds'") > narrow.parts.render.count("'3600 seconds'")


def test_an_index_for_one_group_does_not_serve_ranges() -> None:
    [found] = findings(readings("device_id; kind"), "kind", "device_id")
    assert found.why == "each step of a backfill reads the whole table to render some groups"


def test_a_small_table_needs_no_index() -> None:
    assert [f.severity for f in findings(readings(rows=1000), "device_id")] == ["note"]


def test_an_index_with_an_expression_that_is_not_recognized_may_serve_the_groups() -> None:
    [found] = findings(readings("btrim(kind, 'x'::text)"), "lower(kind)")
    assert found.severity == "warning"
    [found] = findings(readings("btrim(kind, 'x'::text)"), "device_id")
    assert found.severity == "error", "the group is a column, and no index begins with it"


def test_partial_and_hash_indexes_do_not_serve_ranges() -> None:
    tables = readings("device_id")
    [made] = tables.tables.values()
    partial = replace(made, indexes=tuple(replace(index, partial=True) for index in made.indexes))
    hashed = replace(made, indexes=(Index("h", ("device_id",), False, False),))
    for changed in (partial, hashed):
        assert len(findings(Catalog({made.name: changed}), "device_id")) == 1


def test_the_identity_has_to_cover_the_columns_of_the_groups() -> None:
    tables = readings("device_id; taken_at", identity=("id", "device_id"))
    compiled = model(tables, "device_id", HOUR)
    [found] = check_model("m.yaml", compiled, tables)
    assert found.code == "identity" and "leaves out taken_at" in found.what
    assert needed_columns(compiled, tables) == {compiled.root: {"id", "device_id", "taken_at"}}
    assert (
        check_model("m.yaml", compiled, readings("device_id; taken_at", identity=("id", "device_id", "taken_at"))) == []
    )


@pytest.mark.parametrize(
    ("written", "declared"),
    [
        (
            "date_trunc('hour'::text, (taken_at AT TIME ZONE 'UTC'::text))",
            "pg_catalog.date_trunc('hour', (\"taken_at\" AT TIME ZONE 'UTC'))",
        ),
        ("lower((name)::text)", 'pg_catalog.lower("name")'),
        ('"left"(p, 1)', 'pg_catalog.left("p", 1)'),
        ("COALESCE(p, 0)", 'coalesce("p", (0::pg_catalog."int4"))'),
        ("(p > (1)::numeric)", '("p" > 1)'),
        ("(EXTRACT(year FROM c))::integer", '(extract(year FROM "c")::pg_catalog."int4")'),
        ("(payload ->> 'k'::text)", "(\"payload\" ->> 'k')"),
        ("(NOT p)", '(NOT "p")'),
        ("kind", '("kind" COLLATE pg_catalog."C")'),
    ],
)
def test_postgresql_writes_an_expression_in_another_way(written: str, declared: str) -> None:
    assert canonical(written) == canonical(declared)


def test_different_expressions_stay_different() -> None:
    texts = ["a * (b + c)", "a * b + c", "lower(a)", "upper(a)", "a::int", "a::bigint", "a", "b", "not a valid ("]
    assert len(set(map(canonical, texts))) == len(texts)
