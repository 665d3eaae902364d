"""Links that compare texts: what is refused, and which column's index the conditions can use."""

# ruff: noqa: E501 - each case is one line

from dataclasses import replace

import pytest

from syncer.checks import check_model
from syncer.declaration.catalog import Catalog, Index
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse
from syncer.errors import Fatal
from syncer.events import TableName
from tests.harness.catalogs import catalog, table

TABLES = catalog(
    table("posts", "id bigint key, code character, n numeric, u uuid, e ext.citext, t text, d date", full=True),
    table(
        "notes", "id bigint key, target text, v varchar, c character, e ext.citext, n int, u uuid, j jsonb", full=True
    ),
)


def typed(tables: Catalog = TABLES) -> Catalog:
    """Returns the catalog with citext as the base of its columns, as PostgreSQL's catalog has it."""

    def of(columns: dict[str, object]) -> dict[str, object]:
        return {n: replace(c, base="citext") if c.type.endswith(".citext") else c for n, c in columns.items()}  # type: ignore[attr-defined, type-var]

    return replace(tables, tables={n: replace(t, columns=of(dict(t.columns))) for n, t in tables.tables.items()})  # type: ignore[arg-type]


def model(on: str, tables: Catalog | None = None) -> Compiled:
    text = f"name: m\nroot: {{table: posts}}\ndocument:\n  notes:\n    many: notes\n    on: {on}\n    value: id\nsink: {{memory: {{}}}}\n"
    return compile(parse(text, "m.yaml"), tables or typed())


def lookup(on: str) -> str:
    return model(on).table_uses[1].lookup.sql or ""  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("{target: id}", 'm.yaml:6: cannot link public.notes.target (text) and public.posts.id (bigint)\n  → compare their texts: on: {target: "id::text"}; or give both columns the same type: ALTER'),
        ("{c: t}", 'compare their texts: on: {"c::text": t}'),
        ("{target: code}", 'compare their texts: on: {target: "code::text"}'),
        ("{target: e}", 'compare their texts: on: {target: "e::text"}'),
        ('{"target::bigint": id}', 'a link cannot cast target to bigint, because a value that does not fit would fail\n  → compare their texts: on: {target: "id::text"}'),
        ('{"n::text": "id::int4"}', "a link cannot cast id to int4, because a value that does not fit would fail\n  → only ::text is possible"),
        ('{target: "n::text"}', "the type numeric of n cannot be compared as text: its equal values can have different texts\n  → possible are integers, uuid, enums, char(n), citext, varchar and text"),
        ('{target: "d::text"}', "the type date of d cannot be compared as text"),
        ('{"j::text": t}', "the type jsonb of j cannot be compared as text: the syncer cannot search it"),
        ('{n: "t::text"}', 'one side is a text, and n is integer\n  → write on: {"n::text": t}'),
        ('{"u::text": "id::text"}', "the text of uuid never equals the text of bigint\n  → link other columns"),
        ('{"e::text": "e::text"}', "both columns are citext\n  → link them without ::text"),
        ('{target: "idd::text"}', "m.yaml:6: public.posts has no column idd\n  → did you mean 'id'?"),
    ],
)  # fmt: skip
def test_a_link_that_cannot_compare_texts_is_refused(on: str, message: str) -> None:
    with pytest.raises(Fatal) as error:
        model(on)
    assert message in str(error.value)


def test_a_collation_that_makes_different_texts_equal_is_refused() -> None:
    tables = dict(typed().tables)
    notes = tables[TableName("public", "notes")]
    loose = replace(notes.columns["target"], collation="public.ci", loose_collation=True)
    tables[notes.name] = replace(notes, columns={**notes.columns, "target": loose})
    with pytest.raises(Fatal, match=r"the collation public\.ci of target makes different texts equal"):
        model('{target: "id::text"}', Catalog(tables))


def test_columns_with_different_collations_are_refused() -> None:
    found = dict(typed().tables)
    for name, column, collation in (("notes", "target", "public.de"), ("posts", "t", "public.fr")):
        of = found[TableName("public", name)]
        collated = replace(of.columns[column], collation=collation)
        found[of.name] = replace(of, columns={**of.columns, column: collated})
    with pytest.raises(Fatal, match="which have different collations\n  → ALTER TABLE"):
        model("{target: t}", Catalog(found))


def test_each_direction_searches_a_column_without_a_cast() -> None:
    compiled = model('{target: "id::text"}')
    assert 't1."target" = t0."id"::pg_catalog.text' in compiled.render
    assert 'p0."id" = CASE WHEN' in lookup('{target: "id::text"}')
    assert 'p0."code" = v.v0::pg_catalog.text::pg_catalog."bpchar" AND' in lookup('{"u::text": "code::text"}')


def test_the_values_of_an_event_are_never_root_keys_if_texts_are_compared() -> None:
    """`abc` is no key of a bigint column, and would make the render fail."""
    assert model("{n: id}").table_uses[1].lookup.sql is None  # type: ignore[union-attr]
    assert lookup('{target: "id::text"}')


def test_equal_citexts_are_found_by_the_operator_of_the_extension() -> None:
    assert 'p0."e" OPERATOR(ext.=) v.v0' in lookup("{e: e}")


def test_the_plain_indexes_of_both_columns_are_demanded() -> None:
    def demanded(tables: Catalog) -> list[str]:
        found = check_model("m.yaml", model('{target: "code::text"}', tables), tables)
        return [finding.what for finding in found if finding.code == "no-index"]

    assert demanded(typed()) == ["public.notes has no index on target", "public.posts has no index on code"]
    indexed = {
        name: replace(t, indexes=(*t.indexes, Index("i", (column,), False, False)))
        for (name, t), column in zip(typed().tables.items(), ("code", "target"), strict=True)
    }
    assert demanded(Catalog(indexed)) == []


def test_keys_of_extensions_are_refused_for_roots_only() -> None:
    tables = {name: replace(t, primary_key=("e",)) if name.name == "notes" else t for name, t in typed().tables.items()}
    assert model("{n: id}", Catalog(tables)).table_uses[1].path == "notes"
    root = parse("name: m\nroot: {table: notes}\ndocument: {n: n}\nsink: {memory: {}}\n", "m.yaml")
    with pytest.raises(Fatal, match="keep this column UNIQUE; links can still use it"):
        compile(root, Catalog(tables))
