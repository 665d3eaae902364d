"""Expressions that are refused, with their messages, and the SQL of those that are accepted."""

import pytest
from sqlglot import exp

from syncer.declaration.catalog import Catalog
from syncer.declaration.expressions import write
from syncer.declaration.names import Word, nearest
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, parse, parse_order, paths
from syncer.declaration.sql_types import Value


class Anything:
    """Resolves every name to a column. The name determines the type."""

    def whole(self, tree: exp.Expr) -> None:
        return None

    def column(self, path: tuple[Word, ...]) -> Value:
        types = {
            "email": "citext",
            "n": "numeric",
            "tz": "timestamp with time zone",
            "tags": "array",
            "place": "geometry(Point,4326)",
            "map": "geography(Geometry,4326)",
        }
        return Value("t." + ".".join(w.text for w in path), types.get(path[-1].text, ""))

    def aggregate(self, call: Aggregate) -> Value:
        raise UnsupportedExpression(
            f"aggregate {call.name} distinct={call.distinct} over {[len(p) for p in call.paths()]}"
        )


CATALOG = Catalog({}, {"public.mood": ("ok",), 'shop."Größe"': ("S",)}, extensions={"postgis": "gis"})


def sql(text: str) -> str:
    return write(parse(text), Anything(), CATALOG).sql


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("now()", "now() is not among", "depends only on rows"),
        ("current_date - d", "cannot use current_date", "only on rows"),
        ("current_timestamp", "cannot use current_timestamp", ""),
        ("localtime", "cannot use localtime", ""),
        ("current_user", "cannot use current_user", ""),
        ("random()", "random() is not among", ""),
        ("lenght(a)", "lenght() is not among", "did you mean 'length'?"),
        ("smu(a)", "smu() is not among", "did you mean 'sum'?"),
        ("table_to_xml('x', true, true, '')", "table_to_xml() is not among", ""),
        ("nextval('s')", "nextval() is not among", ""),
        ("pg_sleep(1)", "pg_sleep() is not among", ""),
        ("public.mine(a)", "public.mine is not a built-in function of PostgreSQL", ""),
        ("json_build_object('a', b)", "is not among", "use jsonb_build_object"),
        ("unnest(tags)", "is not among", "several rows"),
        ("age(d)", "depends on the clock", "age(later, earlier)"),
        ("'now'::timestamptz", "depends on the clock", "'now'::text"),
        ("tz > 'today 10:00 CET'", "depends on the clock", ""),
        ("date 'tomorrow'", "depends on the clock", ""),
        ("(select 1)", "cannot use a subquery", "declare a relation"),
        ("exists(select 1 from x)", "cannot use a subquery", "count(relation) > 0"),
        ("a in (select b from c)", "cannot use", ""),
        ("sum(a) over ()", "cannot use a window function", ""),
        ("$1", "cannot use a parameter", ""),
        (":name", "cannot use a parameter", ""),
        ("a::regclass", "cannot cast to regclass", "depends on the session"),
        ("a::money", "cannot cast to money", "lc_monetary"),
        ("a::json", "cannot cast to json", "cast to jsonb"),
        ("a::interval day", "cannot cast", ""),
        ("a::modo", "cannot cast to modo", "did you mean 'mood'?"),
        ("a::float(3)", "cannot cast to", ""),
        ("email = 'x'", "has the type citext", "email::text"),
        ("lower(email)", "has the type citext", "email::text"),
        ("tz::hstore", "needs the extension hstore, which this database does", "CREATE EXTENSION hstore"),
        ("a::public.geometry", "cannot cast to public.geometry", "the extension postgis is in the schema gis"),
        ("a::geometry(Point, 'x')", "cannot cast to geometry", ""),
        ("place && place", "whose operators are not built into PostgreSQL", "ST_Intersects"),
        ("case place when place then 1 end", "whose operators are not built into PostgreSQL", ""),
        ("public.st_x(place)", "public.st_x is not a built-in function of PostgreSQL", ""),
        ("st_union(place)", "st_union() is not among", ""),
        ("*", "cannot", ""),
        ("a.*", "`*` is not a column", ""),
        ("(a.b).c", "a field of a composite value", ""),
        ("a ?? b", "cannot use", ""),
        ("x is json", "cannot use", ""),
        ("lower(distinct a)", "cannot use", ""),
        ("lower(a) filter (where b)", "FILTER is only allowed after an aggregate", ""),
        ('a collate "de_DE"', "only the collations", 'COLLATE "C"'),
        ("a in ()", "needs a list", ""),
        ("'a' || (b ->> 'c') ->> 'd' = e->'f' = g", "two ways", "parentheses"),
        ("a < b < c", "two ways", "parentheses"),
        ("a = b = c", "two ways", "parentheses"),
        ("~a + b", "two ways", "parentheses"),
        ("a::int[1]", "", ""),
        ("interval * 2", "cannot use", ""),
        ("interval '1' day", "cannot cast", ""),
    ],
)
def test_unsupported_expressions_are_refused_with_a_reason_and_a_hint(text: str, what: str, hint: str) -> None:
    with pytest.raises(UnsupportedExpression) as error:
        sql(text)
    assert what in error.value.what
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("-- nothing", "is empty"),
        ("a +", "has a syntax error near '+'"),
        ("a b", "has a syntax error near 'b'"),
        ("a as b", "has a syntax error"),
        ("(a", "has a syntax error"),
        ("concat(variadic tags)", "has a syntax error near 'variadic'"),
        ("'a", "is a quote not closed"),
        ("a; drop table b", "without `;`"),
        ("'a' 'b'", "two adjacent strings"),
        ("U&'\\0041'", "plain '…' string"),
        ("x'1F'", "plain '…' string"),
        ("E'\\x41'", "allows only"),
        ("a\0b", "contains a control character"),
        ("drop", "has a syntax error"),
        ("percentile_cont(0.5) within group (order by a", "has a syntax error"),
    ],
)
def test_syntax_errors_are_reported(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as error:
        parse(text)
    assert what in str(error.value) or "\0" in text


@pytest.mark.parametrize("text", ["a limit 1", "a; b", "a using <", ""])
def test_an_order_accepts_only_a_list_of_expressions(text: str) -> None:
    with pytest.raises(ValueError, match=r"has a syntax error|is empty|without"):
        parse_order(text)


def test_paths_finds_names_of_any_length() -> None:
    found = [".".join(w.text for w in path) for path in paths(parse('sum(a.b.c.d.e."F g") + lower(x) + (y)::int'))]
    assert found == ["a.b.c.d.e.F g", "x", "y"]
    assert next(paths(parse('a."B"'))) == (Word("a"), Word("B", quoted=True))


def test_generated_sql_is_qualified_and_in_parentheses() -> None:
    assert sql("lower(a) || b::int::varchar(3)") == (
        '(pg_catalog.lower(t.a) || ((t.b::pg_catalog."int4")::pg_catalog."varchar"(3)))'
    )
    assert sql("interval '1 day 02:03:04'") == "('1 day 02:03:04'::pg_catalog.\"interval\")"
    assert sql("'it''s' || a") == "('it''s' || t.a)"
    assert sql("a::mood") == "(t.a::public.mood)"
    assert sql('a::shop."Größe"[]') == '(t.a::shop."Größe"[])'
    assert sql("email::text || 1") == '((t.email::pg_catalog."text") || 1)'
    assert sql("a = 'now'::text") == "(t.a = ('now'::pg_catalog.\"text\"))"
    assert sql("'order now, or today'") == "'order now, or today'"


def test_aggregates_are_passed_on_with_all_their_parts() -> None:
    with pytest.raises(UnsupportedExpression, match=r"aggregate sum distinct=True over \[2, 2\]"):
        sql("1 + sum(distinct a.b) filter (where a.c > 1)")


def test_nearest_suggests_the_closest_name_or_the_first_names() -> None:
    assert nearest("Quantty", ["quantity", "price"]) == "did you mean 'quantity'?"
    assert nearest("zzz", ["a", "b"]) == "one of: a, b"
    assert nearest("x", []) == ""


@pytest.mark.parametrize(
    ("text", "expected", "type_"),
    [
        ("ST_X(place)", '"gis"."st_x"(t.place)', "double precision"),
        ("gis.st_x((place))", '"gis"."st_x"(t.place)', "double precision"),
        ("place::geography", '(t.place::"gis"."geography")', "geography(Point,4326)"),
        ("a::geometry(PolygonZ, 3857)", '(t.a::"gis"."geometry"(POLYGONZ,3857))', "geometry(POLYGONZ,3857)"),
        ("a::geometry", '(t.a::"gis"."geometry")', "geometry(Geometry,0)"),
        ("st_transform(place, 3857)", '"gis"."st_transform"(t.place, 3857)', "geometry(Point,3857)"),
        ("st_transform(place, n::int)", None, "geometry(Point,0)"),
        ("st_centroid(map)", None, "geography(Point,4326)"),
        ("st_buffer(place, 1)", None, "geometry(Geometry,4326)"),
        ("st_point(1, 2, 4326)", None, "geometry(Point,4326)"),
        ("st_makepoint(1, 2)", None, "geometry(Point,0)"),
        ("case when a then place else place end", None, "geometry(Point,4326)"),
    ],
)
def test_geometries_keep_their_known_kind_and_srid(text: str, expected: str | None, type_: str) -> None:
    found = write(parse(text), Anything(), CATALOG)
    assert found.type == type_
    assert expected is None or found.sql == expected
