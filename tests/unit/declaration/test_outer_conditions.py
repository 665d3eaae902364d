"""`when`, and columns that a condition fixes to a constant: SQL, used columns, unique keys, indexes, refusals."""

# ruff: noqa: E501 - each case is one line

from dataclasses import replace

import pytest

from syncer.checks import check_model
from syncer.declaration.catalog import Catalog, Index
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.fixed_columns import fixed
from syncer.declaration.isolate import bare, places
from syncer.declaration.model import Model, parse
from syncer.errors import Fatal
from syncer.events import TableName
from tests.harness.catalogs import catalog, table

TABLES = catalog(
    table("assets", "id bigint key, owner_type text, owner_id bigint, active boolean", full=True),
    table("companies", "id bigint key, name text", full=True),
    table("images", "id bigint key, kind text, of_id bigint, url text", unique=("kind of_id",), full=True),
)
ASSETS = """\
name: assets
root: {table: assets}
document:
  company:
    one: companies
    on: {id: owner_id}
    when: WHEN
    value: name
  image:
    one: images
    on: {of_id: id}
    where: WHERE
    value: url
sink: {memory: {}}
"""


def model(when: str = "owner_type = 'Company'", where: str = "kind = 'Asset'") -> Model:
    return parse(ASSETS.replace("WHEN", when).replace("WHERE", where), "m.yaml")


def compiled(when: str = "owner_type = 'Company'", where: str = "kind = 'Asset'") -> Compiled:
    return compile(model(when, where), TABLES)


def test_when_belongs_to_the_join_and_its_columns_are_used() -> None:
    found = compiled("owner_type = 'Company' and active")
    assert """t1."id" = t0."owner_id" AND ((t0."owner_type" = 'Company') AND t0."active")""" in found.render
    assert {"owner_type", "active", "owner_id"} <= found.table_uses[0].used
    assert found.table_uses[1].condition == "owner_type = 'Company' and active"


def test_columns_of_when_are_used_if_the_relation_is_not_shown() -> None:
    text = "name: a\nroot: {table: assets}\nrelations:\n  c: {one: companies, on: {id: owner_id}, when: active}\ndocument: {id: id}\nsink: {memory: {}}\n"
    assert "active" in compile(parse(text, "m.yaml"), TABLES).table_uses[0].used


def test_a_look_up_compares_constants_only() -> None:
    """`active` might be replaced by an expression that fails on a row. Fewer conditions find more roots, never fewer."""
    lookup = compiled("owner_type = 'Company' and active").table_uses[1].lookup
    assert lookup and lookup.sql
    assert """ON p0."owner_id" = v.v0 AND (p0."owner_type" = 'Company')""" in lookup.sql
    assert "active" not in lookup.sql


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("company.name = 'x'", "m.yaml:7: `when` cannot use `company.name`: it is a condition over columns of public.assets\n  → put a condition over related rows into `where`"),
        ("count(image) > 0", "m.yaml:7: `when` cannot use `image`"),
        ("ownr_type = 'x'", "m.yaml:7: public.assets has no column or relation 'ownr_type' here\n  → did you mean 'owner_type'?"),
        ("owner_id + 1", "m.yaml:7: `owner_id + 1` is not a condition: its type is bigint"),
        ("owner_type =", "m.yaml:7: `owner_type =` has a syntax error"),
        ("count(id) > 1", "m.yaml:7: count() is not allowed in a filter"),
    ],
)  # fmt: skip
def test_a_wrong_condition_is_refused_with_its_line(when: str, message: str) -> None:
    with pytest.raises(Fatal) as error:
        compiled(when)
    assert message in str(error.value)


def test_a_unique_index_may_contain_columns_that_where_fixes() -> None:
    assert compiled(where="kind = 'Asset' and url <> ''").table_uses[2].fixed == {"kind"}
    for where in ("kind <> 'Asset'", "kind = 'Asset' or url = ''", "kind = url"):
        with pytest.raises(Fatal, match=r"public\.images can have many rows with the same value of"):
            compiled(where=where)


def test_only_comparisons_that_must_be_true_fix_a_column() -> None:
    columns = TABLES.tables[TableName("public", "assets")].columns
    assert set(fixed("owner_type = 'a' and (3 = owner_id and active)", columns)) == {"owner_type", "owner_id"}
    assert not fixed("not (owner_type = 'a')", columns)
    assert not fixed("owner_type = 'a' or active", columns)
    assert not fixed("lower(owner_type) = 'a'", columns)
    assert not fixed("a.owner_type = 'a'", columns)
    assert not fixed("owner_type = (", columns)
    assert not fixed(None, columns)


def test_an_index_may_begin_with_fixed_columns() -> None:
    def demanded(columns: tuple[str, ...], when: str) -> list[str]:
        assets = TABLES.tables[TableName("public", "assets")]
        indexed = replace(assets, indexes=(*assets.indexes, Index("i", columns, False, False)))
        tables = Catalog({**TABLES.tables, assets.name: indexed})
        found = check_model("m.yaml", compile(model(when), tables), tables)
        return [finding.what for finding in found if finding.code == "no-index"]

    missing = ["public.assets has no index on owner_id"]
    assert demanded(("owner_type", "owner_id"), "owner_type = 'Company'") == []
    assert demanded(("owner_type", "owner_id"), "owner_type <> 'Company'") == missing
    assert demanded(("active", "owner_id"), "owner_type = 'Company'") == missing
    assert demanded(("owner_type",), "owner_type = 'Company'") == missing


def test_a_read_model_without_expressions_keeps_what_makes_a_relation_unique() -> None:
    """PostgreSQL's errors are located with such read models."""
    plain = bare(model(where="kind = 'Asset' and url || 1"))
    assert "kind = 'Asset'" in str(plain.declaration.document)
    assert "url" not in str(plain.declaration.document)
    assert compile(plain, TABLES).table_uses[2].path == "image"
    assert (("document", "company", "when"), "owner_type = 'Company'") in places(model())
