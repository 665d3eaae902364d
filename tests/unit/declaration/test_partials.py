"""Relations with partials: what is refused, and the partials that a change makes dirty."""

from __future__ import annotations

import pytest

from syncer import sinks
from syncer.checks.model import check_model, needed_columns
from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.compiled import SortKey
from syncer.declaration.model import parse
from syncer.errors import Fatal
from tests.harness.catalogs import catalog, table

TABLES = catalog(
    table("devices", "id int key, name text, factor numeric", full=True),
    table(
        "readings",
        "id bigint key, device_id int, kind text, value numeric, ratio float8, n int, product_id int not, "
        "taken_at timestamptz not, local_at timestamp not, day date not, seen_at timestamptz",
        full=True,
    ),
    table("pairs", "a text key, b text key, n int", full=True),
)
TEXT = """\
name: m
root: {table: devices}
relations:
  readings: {many: readings, on: {device_id: id}, partials: {by: id, size: 100}}
document:
  name: name
  field: count(readings)
sink: {memory: {}}
"""


def compiled(text: str = TEXT) -> Compiled:
    return compile(parse(text, "m.yaml"), TABLES)


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("string_agg(readings.kind, ',')", r"string_agg\(\) cannot be combined"),
        ("array(readings.n)", r"array\(\) cannot be combined"),
        ("first(readings.n order by readings.kind)", "an order by .*kind.* of the type text cannot be combined"),
        ("count(distinct readings.n)", r"only count\(distinct readings.id\) is possible"),
        ("count(distinct readings.id + 1)", r"only count\(distinct readings.id\) is possible"),
        ("sum(distinct readings.id)", r"sum\(distinct …\) cannot be combined"),
        ("sum(readings.n order by readings.n)", r"sum\(\) with ORDER BY cannot be combined"),
        ("sum(readings.ratio)", r"sum\(\) of the type double precision is not exact"),
        ("avg(readings.ratio)", r"avg\(\) of the type double precision is not exact"),
        ("min(readings.kind)", r"min\(\) of the type text cannot be combined"),
        ("coalesce(sum(readings.n), 0)", "computes with an aggregate of readings"),
        ("sum(readings.value * factor)", "depends on rows above it: factor"),
        ("upper(name)", "no field is an aggregate of readings"),
    ],
)
def test_fields_that_do_not_combine(expression: str, what: str) -> None:
    value = expression if expression.startswith("{") else f'"{expression}"'
    with pytest.raises(Fatal, match=what) as error:
        compiled(TEXT.replace("field: count(readings)", f"field: {value}"))
    assert error.value.where.startswith("m.yaml:")
    assert error.value.hint


@pytest.mark.parametrize(
    "field", ["{object: {n: count(readings)}}", "{value: count(readings), group_by: readings.kind}"]
)
def test_a_nested_field_does_not_combine(field: str) -> None:
    with pytest.raises(Fatal, match="a nested or computed field uses readings"):
        compiled(TEXT.replace("sink:", f"  nested: {field}\nsink:"))


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("by: id", "by: n", "cannot divide public.readings by 'n': it can be NULL"),
        ("by: id", "by: kind", "cannot divide public.readings by 'kind': its type is text"),
        ("by: id", "by: missing", "cannot divide public.readings by 'missing': there is no such column"),
        ("by: id", "by: taken_at", "its type is timestamp with time zone, and `size` has no unit"),
        ("by: id, size: 100", "by: seen_at, size: 1h", "it can be NULL"),
        ("size: 100", "size: 1h", "its type is bigint, and `size` is a duration"),
        ("by: id, size: 100", "by: day, size: 36h", "`size` is not a number of days"),
        ("many: readings, on: {device_id: id}", "many: pairs, on: {a: name}", "need a link to the whole primary key"),
        ("on: {device_id: id}", "on: {device_id: id}, order_by: n", "`order_by` has no effect"),
        ("size: 100", "size: 1", "must be a number of values, from 2 to 10000000, or a duration such as 1h"),
        ("size: 100", "size: 1.5", "must be a number of values"),
        ("size: 100", "size: 20000000", "must be a number of values"),
        ("size: 100", "size: 500ms", "a duration must be whole seconds, from 1s to 36500d"),
        ("size: 100", "size: 1 fortnight", "must be a duration such as 30s"),
        ("devices}", "devices, group: {name: name}, nulls: drop}", "leads to many rows"),
        (
            "document:",
            "  more: {many: readings, on: {device_id: id}, partials: {by: id, size: 9}}\ndocument:",
            "only one",
        ),
        ("document:", "  more: {many: pairs, on: {a: readings.kind}}\ndocument:", "links through a relation"),
    ],
)
def test_relations_that_cannot_be_divided(before: str, after: str, what: str) -> None:
    with pytest.raises(Fatal, match=what) as error:
        compiled(TEXT.replace(before, after))
    assert "m.yaml:" in str(error.value)


def test_a_minimum_interval_needs_no_resync() -> None:
    assert compiled(f"{TEXT}min_interval: 1s\n").hash == compiled(TEXT).hash


LIST = "  list: {many: readings, on: {device_id: id}, limit: 5, value: n, partials: {by: id, size: 9}}\n"
SHOWN = TEXT.replace(
    "relations:\n  readings: {many: readings, on: {device_id: id}, partials: {by: id, size: 100}}\n", ""
)
SHOWN = SHOWN.replace("  field: count(readings)\n", f"{LIST}  rows: count(list)\n")


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("limit: 5, ", "", "a list with `partials` needs a `limit` of at most 100"),
        ("limit: 5", "limit: 101", "a list with `partials` needs a `limit` of at most 100"),
        ("limit: 5, value: n", "limit: 5, group_by: n, value: n", "a list of groups cannot have `partials`"),
        ("limit: 5", "limit: 5, order_by: kind", "of the type text cannot be combined"),
        ("limit: 5", "limit: 5, order_by: upper(kind)", "of the type text cannot be combined"),
        (LIST, f"  o: {{object: {{{LIST.strip()}}}}}\n", "need a relation of the root row"),
    ],
)
def test_lists_that_do_not_combine(before: str, after: str, what: str) -> None:
    with pytest.raises(Fatal, match=what) as error:
        compiled(
            SHOWN.replace(before, after).replace("count(list)", "count(o.list)" if "o:" in after else "count(list)")
        )
    assert "m.yaml:" in str(error.value)
    assert "→" in str(error.value)


@pytest.mark.parametrize(
    ("order", "named"), [("kind", "`kind`"), ("[n, upper(kind) desc]", r"`UPPER\(kind\)`|`upper\(kind\)`")]
)
def test_an_order_that_cannot_be_merged_is_one_finding_in_the_users_words(order: str, named: str) -> None:
    with pytest.raises(Fatal, match=f"an order by ({named}) of the type text") as error:
        compiled(SHOWN.replace("limit: 5", f"limit: 5, order_by: {order}"))
    assert "has no effect" not in str(error.value) and "mistakes" not in str(error.value)


def test_a_list_with_a_limit_combines() -> None:
    partials = compiled(SHOWN.replace("limit: 5", "limit: 5, order_by: [value desc, n nulls first]")).partials
    assert partials is not None
    [_, found, rows] = partials.fields
    assert (found.function, found.limit) == ("list", 5)
    assert found.order == (SortKey(False, True, True), SortKey(False, False, True), SortKey())
    assert (rows.function, rows.at) == ("count", 1)


def test_distinct_values_of_the_bucket_column_are_counted() -> None:
    text = TEXT.replace("by: id", "by: product_id").replace("count(readings)", "count(distinct readings.product_id)")
    partials = compiled(text).partials
    assert partials is not None
    assert partials.fields[1].function == "count"
    assert 'count(DISTINCT t1."product_id")' in partials.parts.render


def test_another_size_is_another_declaration() -> None:
    assert compiled().hash != compiled(TEXT.replace("100", "200")).hash
    hours = TEXT.replace("by: id, size: 100", "by: taken_at, size: 1h")
    assert compiled(hours).hash == compiled(hours.replace("1h", "60min")).hash
    assert compiled(hours).hash != compiled(hours.replace("1h", "2h")).hash


def test_the_hash_of_a_declaration_stays_the_same() -> None:
    """Otherwise, an upgrade would demand a resync."""
    assert compiled().hash == "3-1436dfa342720f09"


@pytest.mark.parametrize(
    ("by", "size", "type"),
    [("taken_at", "90s", "timestamptz"), ("local_at", "1h", "timestamp"), ("day", "7d", "date"), ("n2", "9", "int8")],
)
def test_the_bounds_have_the_type_of_the_column(by: str, size: str, type: str) -> None:
    """Otherwise, an index on the column would not serve them."""
    text = TEXT.replace("by: id, size: 100", f"by: {by.replace('n2', 'product_id')}, size: {size}")
    partials = compiled(text).partials
    assert partials is not None
    assert f"::pg_catalog.{type}" in partials.parts.render
    use = next(use for use in partials.parts.table_uses if use.path == "readings")
    assert partials.by in use.used, "a change of this column alone moves the row"
    assert use.needs_before, "the old row says which bucket it leaves"


def test_check_demands_the_old_value_of_the_bucket_column() -> None:
    text = TEXT.replace("by: id, size: 100", "by: taken_at, size: 1h")
    weak = table("readings", "id bigint key, device_id int key, taken_at timestamptz not")
    tables = Catalog({**TABLES.tables, weak.name: weak}, {})
    found = compile(parse(text, "m.yaml"), tables)
    findings = {finding.code: finding for finding in check_model("m.yaml", found, tables)}
    assert "the replica identity leaves out taken_at" in findings["identity"].what
    assert "REPLICA IDENTITY FULL" in findings["identity"].fix
    assert "(device_id, taken_at);" in findings["partials-index"].fix
    assert needed_columns(found, tables)[weak.name] == {"id", "device_id", "taken_at"}


def test_an_inserted_root_makes_all_partials_dirty_and_an_updated_one_only_its_own() -> None:
    partials = compiled().partials
    assert partials is not None
    uses = {use.path: use for use in partials.parts.table_uses}
    assert uses["(all partials)"].ops == "crd"
    assert uses["readings"].lookup is not None
    assert uses["readings"].lookup.columns == ("device_id", "id")
    assert partials.parts.key == ("id", "bucket")


def test_check_demands_an_index_that_leads_to_a_bucket() -> None:
    [finding] = [f for f in check_model("m.yaml", compiled(), TABLES) if f.code == "partials-index"]
    assert finding.severity == "error"
    assert "CREATE INDEX CONCURRENTLY ON" in finding.fix
    assert "(device_id, id);" in finding.fix


BLOCKS = {
    "kafka": {"topic": "devices"},
    "elasticsearch": {"index": "devices"},
    "postgres": {"table": "read.devices"},
    "redis": {"key": "d:{id}"},
}


@pytest.mark.parametrize("kind", ["kafka"])
def test_sinks_without_partials_refuse_them(kind: str) -> None:
    found = sinks.check(kind, BLOCKS[kind], compiled().fields, partials=True)
    assert any("cannot store the partials" in problem.what and problem.hint for problem in found)


@pytest.mark.parametrize("kind", ["elasticsearch", "postgres", "redis"])
def test_sinks_with_partials_accept_them(kind: str) -> None:
    assert sinks.check(kind, BLOCKS[kind], compiled().fields, partials=True) == []
