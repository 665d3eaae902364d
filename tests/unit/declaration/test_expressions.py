"""What an expression may not be, and how that is told."""

import pytest

from syncer.declaration.catalog import Catalog
from syncer.declaration.expressions import write
from syncer.declaration.names import Word, nearest
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, parse, parse_order, paths
from syncer.declaration.sql_types import Value


class Anything:
    """Every name is a column; types by name."""

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
        ("now()", "now() is not among", "a function of the rows alone"),
        ("current_date - d", "cannot use current_date", "rows alone"),
        ("current_timestamp", "cannot use current_timestamp", ""),
        ("localtime", "cannot use localtime", ""),
        ("current_user", "cannot use current_user", ""),
        ("random()", "random() is not among", ""),
        ("lenght(a)", "lenght() is not among", "did you mean 'length'?"),
        ("smu(a)", "smu() is not among", "did you mean 'sum'?"),
        ("table_to_xml('x', true, true, '')", "table_to_xml() is not among", ""),
        ("nextval('s')", "nextval() is not among", ""),
        ("pg_sleep(1)", "pg_sleep() is not among", ""),
        ("public.mine(a)", "public.mine is not a function of PostgreSQL itself", ""),
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
        ("email = 'x'", "is of the type citext", "email::text"),
        ("lower(email)", "is of the type citext", "email::text"),
        ("tz::hstore", "of the extension hstore, which this database does", "CREATE EXTENSION hstore"),
        ("a::public.geometry", "cannot cast to public.geometry", "postgis is in the schema gis"),
        ("a::geometry(Point, 'x')", "cannot cast to geometry", ""),
        ("place && place", "whose operators are not PostgreSQL's own", "ST_Intersects"),
        ("case place when place then 1 end", "whose operators are not PostgreSQL's own", ""),
        ("public.st_x(place)", "public.st_x is not a function of PostgreSQL itself", ""),
        ("st_union(place)", "st_union() is not among", ""),
        ("*", "cannot", ""),
        ("a.*", "`*` names no column", ""),
        ("(a.b).c", "a field of a composite value", ""),
        ("a ?? b", "cannot use", ""),
        ("x is json", "cannot use", ""),
        ("lower(distinct a)", "cannot use", ""),
        ("lower(a) filter (where b)", "FILTER belongs to an aggregate", ""),
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
def test_what_cannot_be_used_is_told(text: str, what: str, hint: str) -> None:
    with pytest.raises(UnsupportedExpression) as error:
        sql(text)
    assert what in error.value.what
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("-- nothing", "is empty"),
        ("a +", "cannot be read near '+'"),
        ("a b", "cannot be read near 'b'"),
        ("a as b", "cannot be read"),
        ("(a", "cannot be read"),
        ("concat(variadic tags)", "cannot be read near 'variadic'"),
        ("'a", "is a quote left open"),
        ("a; drop table b", "without `;`"),
        ("'a' 'b'", "two strings side by side"),
        ("U&'\\0041'", "plain '…' string"),
        ("x'1F'", "plain '…' string"),
        ("E'\\x41'", "knows only"),
        ("a\0b", "cannot"),
        ("drop", "cannot be read"),
        ("percentile_cont(0.5) within group (order by a", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as error:
        parse(text)
    assert what in str(error.value) or "\0" in text


@pytest.mark.parametrize("text", ["a limit 1", "a; b", "a using <", ""])
def test_an_order_is_a_list_of_expressions(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read|is empty|without"):
        parse_order(text)


def test_every_name_is_told_whatever_its_length() -> None:
    told = [".".join(w.text for w in path) for path in paths(parse('sum(a.b.c.d.e."F g") + lower(x) + (y)::int'))]
    assert told == ["a.b.c.d.e.F g", "x", "y"]
    assert next(paths(parse('a."B"'))) == (Word("a"), Word("B", quoted=True))


def test_what_is_written_is_qualified_and_in_parentheses() -> None:
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


def test_aggregates_are_handed_over_whole() -> None:
    with pytest.raises(UnsupportedExpression, match=r"aggregate sum distinct=True over \[2, 2\]"):
        sql("1 + sum(distinct a.b) filter (where a.c > 1)")


def test_the_nearest_name() -> None:
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
def test_shapes_keep_what_is_known_of_them(text: str, expected: str | None, type_: str) -> None:
    found = write(parse(text), Anything(), CATALOG)
    assert found.type == type_
    assert expected is None or found.sql == expected
