"""Tests every column type: its derived mapping accepts the JSON of its values, or `check` refuses the type.

The test build of Elasticsearch has no `geo_shape`. For this type, the tests compare mapping and document only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import urllib3
from psycopg import sql

from devstack import Stack
from syncer import sinks
from syncer.declaration.compile import Compiled, Field, compile
from syncer.declaration.extensions import FUNCTIONS
from syncer.declaration.model import parse, tables
from syncer.document import Batch
from syncer.errors import Fatal, Reject
from syncer.operations.comparison import same
from syncer.postgres.catalog import load
from syncer.postgres.session import PINNED, classify_error
from syncer.postgres.validate_sql import plan
from syncer.sinks.elasticsearch.sink import ElasticsearchSink
from tests.contracts.sinks import compiled as read_model
from tests.contracts.types_page import rows
from tests.harness import Database, Names
from tests.harness.postgres_servers import reads_database

EXTENSIONS = {
    "hstore": "public",
    "citext": "public",
    "ltree": "odd",
    "cube": "public",
    "isn": "public",
    "seg": "public",
    "intarray": "public",
    "pg_trgm": "public",
    "postgis": "Geo data",
}


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect() as session:
        if not session.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'postgis'").fetchone():
            pytest.skip("this PostgreSQL has no PostGIS (Debian's has: python -m devstack packages)")
        for name, value in PINNED.items():
            if name not in ("default_transaction_read_only", "search_path"):
                session.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        yield session


def install(conn: psycopg.Connection[Any], **schemas: str) -> None:
    for extension, schema in schemas.items():
        conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        conn.execute(sql.SQL("CREATE EXTENSION {} SCHEMA {}").format(sql.Identifier(extension), sql.Identifier(schema)))


def compiled(conn: psycopg.Connection[Any], *fields: str, more: str = "") -> Compiled:
    """Compiles a read model of the table `t`. Its fields are named f0, f1 and so on."""
    text = "".join(f"  f{n}: {json.dumps(field)}\n" for n, field in enumerate(fields))
    model = parse(f"name: t\nroot: {{table: t}}\ndocument:\n{text}{more}sink: {{m: {{}}}}\n", "m.yaml")
    return compile(model, load(conn, tables(model)))


def render(conn: psycopg.Connection[Any], model: Compiled) -> list[str]:
    """Returns the documents of all rows, rendered with `pg_catalog` as search path, like in the daemon."""
    ids = [str(row[0]) for row in conn.execute("SELECT id FROM public.t ORDER BY id")]
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        rows = conn.execute(model.render.encode(), [ids]).fetchall()
    found = {row[0]: row[2] for row in rows}
    return [found[id] for id in ids]


Index = Callable[..., ElasticsearchSink]


@pytest.fixture
def index(stack: Stack, names: Names) -> Iterator[Index]:
    """Yields a function that creates an index for documents with the given fields."""
    made: list[ElasticsearchSink] = []

    def build(fields: tuple[Field, ...], mapping: dict[str, Any] | None = None) -> ElasticsearchSink:
        settings = {
            "index": names("types"),
            "mapping": mapping or {},
            "settings": {"number_of_replicas": 0, "mapping.total_fields.limit": 5000},
        }
        model, link = read_model(names("types"), fields), {"url": stack.elasticsearch}
        sink = sinks.build("elasticsearch", settings, model=model, connection=link)
        assert isinstance(sink, ElasticsearchSink)
        made.append(sink)
        sink.prepare()
        return sink

    yield build
    for sink in made:
        sink.close()


def hits(stack: Stack, sink: ElasticsearchSink, query: dict[str, Any]) -> list[str]:
    urllib3.request("POST", f"{stack.elasticsearch}/{sink.index}/_refresh")
    answer = urllib3.request("POST", f"{stack.elasticsearch}/{sink.alias}/_search", json={"query": query})
    assert answer.status == 200, answer.data
    return sorted(hit["_id"] for hit in answer.json()["hits"]["hits"])


OWN_TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'so so');
CREATE TYPE speaking AS ENUM ('yes');
CREATE FUNCTION as_json(speaking) RETURNS json IMMUTABLE LANGUAGE sql AS 'SELECT ''{"said":\n "yes"}''::json';
CREATE CAST (speaking AS json) WITH FUNCTION as_json(speaking);
CREATE TYPE pair AS (n int, j json);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE DOMAIN posint AS int CHECK (value > 0);
CREATE DOMAIN small AS posint;
CREATE DOMAIN moods AS mood[];
CREATE DOMAIN attributes AS hstore;
CREATE DOMAIN pairs AS pair;
CREATE DOMAIN place AS "Geo data".geometry(Point, 4326);
CREATE DOMAIN area AS "Geo data".geography;
CREATE DOMAIN bag AS jsonb;
"""
_SHAPES = ["SRID=4326;POINT(13.4 52.5)", "SRID=4326;POINT EMPTY", "SRID=4326;POINT(181 91)"]
# Type → values that its input function accepts. Other types take one of FALLBACK.
VALUES: dict[str, list[str]] = {
    "smallint": ["-32768"],
    "integer": ["2147483647"],
    "bigint": ["-9223372036854775808"],
    "numeric": ["1.50", "NaN", "Infinity", "-Infinity", "1" + "0" * 400, "0." + "1" * 900],
    "real": ["0.1", "NaN", "-Infinity"],
    "double precision": ["1e308", "5e-324", "NaN", "Infinity"],
    "boolean": ["t"],
    "oid": ["4294967295"],
    "xid": ["4294967295"],
    "cid": ["1"],
    "xid8": ["1"],
    "tid": ["(0,1)"],
    "bytea": ["\\xdeadbeef", "\\x" + "00" * 40_000],
    "text": ['a\n"b"\\ \u2028 ü', "x" * 40_000, ""],
    "character varying": ["x" * 40_000],
    "character": ["a"],
    '"char"': ["a"],
    "name": ["n"],
    "date": ["2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"],
    "timestamp without time zone": ["2024-02-29 12:34:56.789012", "infinity", "0044-03-15 BC", "294276-12-31"],
    "timestamp with time zone": ["2024-02-29 12:34:56.789+02", "-infinity", "4713-01-02 00:00+00 BC"],
    "time without time zone": ["24:00"],
    "time with time zone": ["10:00+15:59"],
    "interval": ["1 year -2 days 03:04:05.6", "-178000000 years"],
    "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"],
    "json": ['{"a":\n [1, {"b": null}]}', "1", '"x"', "[1]", "null"],
    "jsonb": ['{"a": [1, {"b": null}], "": {"..": 1}}', "1", '"x"', "[[1]]", "null"],
    "jsonpath": ["$.a"],
    "xml": ["<a>\n</a>"],
    "bit": ["1"],
    "bit varying": ["10", ""],
    "inet": ["10.0.0.1/8", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "pg_lsn": ["16/B374D848"],
    "tsvector": ["a b"],
    "tsquery": ["a & b"],
    "point": ["(1,2)", "(NaN,Infinity)"],
    "line": ["{1,2,3}"],
    "lseg": ["[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"],
    "path": ["((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "circle": ["<(0,0),1>"],
    "pg_snapshot": ["1:1:"],
    "txid_snapshot": ["1:1:"],
    "aclitem": ["syncer=r/syncer"],
    "refcursor": ["c"],
    "int2vector": ["1 2"],
    "oidvector": ["1 2"],
    "gtsvector": [],
    "public.hstore": ['"a b"=>1, c=>NULL, ""=>x, d.e=>"' + "y" * 40_000 + '"', ""],
    "public.attributes": ["a=>1"],
    "public.mood": ["so so"],
    "public.moods": ["{sad,NULL}"],
    "public.speaking": ["yes"],
    "public.pair": ["(1,)", '(,"{""a"":1}")'],
    "public.pairs": ["(1,)"],
    "public.span": ["[1,2)", "empty"],
    "public.cube": ["(1,2),(3,4)"],
    "odd.lquery": ["a.*"],
    "odd.ltxtquery": ["a & b"],
    "odd.ltree": ["a.b"],
    "public.seg": ["1 .. 2"],
    "public.query_int": ["1&2"],
    '"Geo data".geometry': _SHAPES,
    '"Geo data".geography': _SHAPES[:2],
    "public.place": _SHAPES,
    "public.area": _SHAPES[:1],
    '"Geo data".box2d': ["BOX(1 2,3 4)"],
    '"Geo data".box3d': ["BOX3D(1 2 3,4 5 6)"],
    '"Geo data".spheroid': ['SPHEROID["WGS 84",6378137,298.257]'],
}
FALLBACK = [
    "1",
    "a",
    "empty",
    "{}",
    "{NULL}",
    "()",
    "(,)",
    "(,,)",
    "(,,,)",
    "2024-02-29",
    "YES",
    "0901690546",
    "9780393040029",
    "9790060115615",
    "9771436452008",
    "1436-4522",
    "220356483481",
]
# internal types, whose input functions accept nothing
UNWRITABLE = re.compile(
    r"pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin_\w+|gtsvector"
    r"|.*\.(ghstore|gtrgm|ltree_gist|box2df|gidx|intbig_gkey|gseg)"
)
GEOMETRY = '"Geo data".geometry'
REFUSED = re.compile(r"(money|reg\w+)(\[\])?")
ALL = """
SELECT CASE WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, NULL)
            ELSE coalesce(quote_ident(en.nspname) || '.' || quote_ident(e.typname) || '[]',
                          quote_ident(n.nspname) || '.' || quote_ident(t.typname)) END,
       CASE WHEN e.oid IS NOT NULL THEN t.typdelim::text ELSE '' END
  FROM pg_type t
  JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
  LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
  LEFT JOIN pg_class c ON c.oid = t.typrelid
  LEFT JOIN pg_class ec ON ec.oid = e.typrelid
 WHERE t.typisdefined AND t.typtype <> 'p' AND coalesce(e.typtype, '') <> 'p'
   AND coalesce(c.relkind, 'c') = 'c' AND coalesce(ec.relkind, 'c') = 'c'
   AND n.nspname <> 'pg_toast' AND NOT (n.nspname = 'Geo data' AND t.typtype = 'c')
 ORDER BY 1
"""


def fill(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Creates a table with a column of every type, and its rows. Returns type → column."""
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        found: list[tuple[str, str]] = conn.execute(ALL.encode()).fetchall()
    columns = {type_: f"c{n}" for n, (type_, _) in enumerate(found)}
    listed = ", ".join(f"{column} {type_}" for type_, column in columns.items())
    conn.execute(f"CREATE TABLE t (id int PRIMARY KEY, {listed})".encode())
    conn.execute("INSERT INTO t SELECT generate_series(0, 6)")
    for type_, delimiter in found:
        element = type_.removesuffix("[]") if delimiter else type_
        values = VALUES.get(element) or FALLBACK
        accepted = 0
        for row, value in enumerate(values):
            if delimiter:  # an array in an array, and a null
                escaped = value.replace("\\", "\\\\").replace('"', '\\"')
                value = f'{{{{"{escaped}"{delimiter}NULL}}}}'
            row = row if element in VALUES else 0
            try:
                with conn.transaction():
                    statement = (
                        f"UPDATE t SET {columns[type_]} = %s::{type_} WHERE id = {row} AND {columns[type_]} IS NULL"
                    )
                    conn.execute(statement.encode(), [value])
                accepted += 1
            except psycopg.Error:
                if element in VALUES and not UNWRITABLE.fullmatch(element):
                    raise
        assert bool(accepted) != bool(UNWRITABLE.fullmatch(element)), f"{type_}: no value is known for it"
    return columns


def test_the_derived_mapping_of_every_type_accepts_its_values(conn: psycopg.Connection[Any], index: Index) -> None:
    install(conn, **EXTENSIONS)
    conn.execute(OWN_TYPES.encode())
    columns = fill(conn)
    refused = {type_: error for type_, column in columns.items() if (error := refusal(conn, column))}
    shapes = {GEOMETRY, f"{GEOMETRY}[]"}
    assert {type_ for type_ in refused if not REFUSED.fullmatch(type_)} == shapes
    assert all(error.hint for error in refused.values())
    assert not [type_ for type_ in columns if REFUSED.fullmatch(type_) and type_ not in refused]
    expressions = {type_: column for type_, column in columns.items() if type_ not in refused}
    expressions[GEOMETRY] = f"st_setsrid({columns[GEOMETRY]}, 4326)"
    model = compiled(conn, *expressions.values())
    kinds = dict(zip(expressions, model.fields, strict=True))
    shaped = {f.name: {"type": "object", "enabled": False} for f in model.fields if f.type == "geojson"}
    sink = index(model.fields, shaped)
    documents = render(conn, model)
    assert not any("\n" in document for document in documents)
    out = sink.write(Batch(1, {str(n): text.encode() for n, text in enumerate(documents)}, []))
    assert out.rejected == []
    assert out.written == len(documents)
    assert {t: kinds[t].type for t in ("public.attributes", "public.place", "public.area")} == {
        "public.attributes": "hstore",
        "public.place": "geojson point",
        "public.area": "geojson",
    }
    speaking = render(conn, compiled(conn, f"{columns['public.speaking']}::text"))
    assert speaking[0] == '{"f0":"yes"}'  # the type's own text, not that of its JSON
    for type_, field in kinds.items():
        values = [value for value in (json.loads(text)[field.name] for text in documents) if value is not None]
        for value in values:
            assert fits(field, value), f"{type_} is {field.type}, its JSON {json.dumps(value)[:80]}"


def test_a_table_of_postgresql_gives_back_the_values_of_every_type(conn: psycopg.Connection[Any], stack: Stack) -> None:
    install(conn, **EXTENSIONS)
    conn.execute(OWN_TYPES.encode())
    usable = [column for column in fill(conn).values() if refusal(conn, column) is None]
    with reads_database(stack.postgres) as dsn:
        for start in range(0, len(usable), 100):  # a row has to fit into a page, with 18 bytes for each long value
            model = compiled(conn, *usable[start : start + 100])
            documents = {str(n): text.encode() for n, text in enumerate(render(conn, model))}
            block = {"table": f"read.types_{start}"}
            sink = sinks.build("postgres", block, model=model, connection={"dsn": dsn})
            sink.prepare()
            out = sink.write(Batch(1, documents, []))
            assert (out.rejected, out.written) == ([], len(documents))
            found = sink.read(list(documents))
            for id, body in documents.items():
                assert same(sink.normalize(body), found[id])
                assert_same_fields(found[id], body)
            sink.close()


def assert_same_fields(found: bytes, wanted: bytes) -> None:
    """Compares the fields one by one, so that an error shows the one that differs."""
    left, right = (json.loads(text, parse_float=Decimal, parse_int=Decimal) for text in (found, wanted))
    for name in right:
        assert left[name] == right[name], name
    assert left.keys() == right.keys()


def refusal(conn: psycopg.Connection[Any], expression: str) -> Fatal | None:
    try:
        compiled(conn, expression)
    except Fatal as error:
        return error
    return None


KINDS: dict[str, Callable[[Any], bool]] = {
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    'number, or the strings `"NaN"`, `"Infinity"`, `"-Infinity"`': lambda value: (
        isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity")
    ),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "object of strings and nulls": lambda value: (
        isinstance(value, dict) and all(isinstance(one, str | None) for one in value.values())
    ),
    "any": lambda value: True,
}
PAGE = rows()


def fits(field: Field, value: Any) -> bool:
    """Returns whether a value is the JSON that docs/types.md gives for the type of its field."""
    if field.type == "array":  # an array whose elements are arrays, such as int2vector
        return isinstance(value, list)
    if field.many and isinstance(value, list):
        return all(fits(field, item) for item in value if item is not None)
    return KINDS[PAGE[field.type].json if field.type in PAGE else "string"](value)


CLOCKWISE = "SRID=4326;POLYGON((0 0, 0 2, 2 2, 2 0, 0 0))"
SHOWN: list[tuple[str, str, Any]] = [
    ("loc", "geojson point", {"type": "Point", "coordinates": [13.4, 52.5]}),
    ("loc3", "geojson point", {"type": "Point", "coordinates": [1, 2, 3]}),
    ("area", "geojson", {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]]}),
    ("spot", "geojson point", {"type": "Point", "coordinates": [1, 2]}),
    ("locs", "geojson point", [{"type": "Point", "coordinates": [1, 2]}, None]),
    (
        "ST_SnapToGrid(ST_Transform(mercator, 4326), 0.000001)",
        "geojson point",
        {"type": "Point", "coordinates": [0, 0]},
    ),
    ("ST_SetSRID(bare, 4326)", "geojson", {"type": "Point", "coordinates": [3, 4]}),
    ("ST_SetSRID(bare, 4326)::geometry(Point, 4326)", "geojson point", {"type": "Point", "coordinates": [3, 4]}),
    ("ST_SetSRID(ST_MakePoint(1, 2), 4326)", "geojson point", {"type": "Point", "coordinates": [1, 2]}),
    ("ST_Centroid(area)", "geojson point", {"type": "Point", "coordinates": [1, 1]}),
    ("coalesce(gone, loc)", "geojson point", {"type": "Point", "coordinates": [13.4, 52.5]}),
    ("case when id = 1 then loc end", "geojson point", {"type": "Point", "coordinates": [13.4, 52.5]}),
    ("ST_X(loc)", "double precision", 13.4),
    ("ST_Y(spot::geometry)", "double precision", 2),
    ("ST_AsText(mercator)", "text", "POINT(0 0)"),
    ("ST_AsGeoJSON(loc)::jsonb", "jsonb", {"type": "Point", "coordinates": [13.4, 52.5]}),
    ("ST_DWithin(loc::geography, loc::geography, 5)", "boolean", True),
    ("ST_Contains(area, ST_GeomFromText('POINT(0.1 0.5)', 4326))", "boolean", True),
    ("ST_Distance(loc::geography, spot) > 5000000", "boolean", True),
    ("attrs", "hstore", {"color": "red", "x": None}),
    ("attrs::jsonb ->> 'color'", "text", "red"),
    ("'a=>1'::hstore", "hstore", {"a": "1"}),
    ("loc is null", "boolean", False),
    ("gone", "geojson point", None),
]


@pytest.mark.parametrize("schema", ["public", "Geo data"])
def test_shapes_and_hstore_with_their_extension_in_any_schema(conn: psycopg.Connection[Any], schema: str) -> None:
    install(conn, postgis=schema, hstore=schema)
    conn.execute(sql.SQL("SET search_path = public, {}").format(sql.Identifier(schema)))
    conn.execute(
        "CREATE TABLE public.t (id int PRIMARY KEY, loc geometry(Point, 4326), loc3 geometry(PointZ, 4326),"
        " area geometry(Polygon, 4326), spot geography(Point), locs geometry(Point, 4326)[],"
        " mercator geometry(Point, 3857), bare geometry, attrs hstore, gone geometry(Point, 4326))"
    )
    conn.execute(
        "INSERT INTO public.t VALUES (1, 'SRID=4326;POINT(13.4 52.5)', 'SRID=4326;POINT(1 2 3)', %s,"
        " 'POINT(1 2)', ARRAY['SRID=4326;POINT(1 2)', NULL]::geometry[], 'SRID=3857;POINT(0 0)',"
        " 'POINT(3 4)', 'color=>red,x=>NULL')",
        [CLOCKWISE],
    )
    expressions = [text for text, _, _ in SHOWN]
    model = compiled(conn, *expressions)
    [document] = map(json.loads, render(conn, model))
    found = [(text, field.type, document[field.name]) for text, field in zip(expressions, model.fields, strict=True)]
    assert found == SHOWN


NO_SHAPE = [
    ("mercator", "the SRID of mercator is 3857", "ST_Transform(mercator, 4326)"),
    ("bare", "the SRID of bare is not known", "ST_SetSRID(bare, 4326)"),
    ("bares", "the SRID of bares is not known", "ST_SetSRID(bares, 4326)"),
    ("nad", "the SRID of nad is 4269", "ST_Transform(nad::geometry, 4326)"),
    ("curve", "GeoJSON has no CircularString", "ST_CurveToLine(curve)"),
    ("bare = bare", "whose operators are not built into PostgreSQL", "ST_Distance"),
    ("attrs -> 'a'", "whose operators are not built into PostgreSQL", "attrs::jsonb"),
    ("attrs::public.geometry", "cannot cast to public.geometry", "gis"),
    ("'x'::ltree", "cannot cast to ltree", ""),
]


def test_shapes_that_are_not_geojson_are_refused_with_a_hint(conn: psycopg.Connection[Any]) -> None:
    install(conn, postgis="gis", hstore="public")
    conn.execute("SET search_path = public, gis")
    conn.execute(
        "CREATE TABLE t (id int PRIMARY KEY, mercator geometry(Point, 3857), bare geometry, bares geometry[],"
        " nad geography(Point, 4269), curve geometry(CircularString, 4326), attrs hstore)"
    )
    for expression, what, hint in NO_SHAPE:
        error = refusal(conn, expression)
        assert error is not None
        assert what in error.what
        assert hint in error.hint
        assert error.where == "m.yaml:4"


def test_a_shape_refused_by_postgis_is_a_rejected_row(conn: psycopg.Connection[Any]) -> None:
    """PostGIS reports an internal error, which would otherwise be retried forever."""
    install(conn, postgis="public")
    conn.execute("CREATE TABLE t (id int PRIMARY KEY, g geometry(Geometry, 4326), wkt text)")
    conn.execute("INSERT INTO t VALUES (1, 'SRID=4326;CIRCULARSTRING(0 0, 1 1, 2 0)', 'POINT(')")
    for expression in ("g", "ST_GeomFromText(wkt, 4326)", "ST_Transform(ST_SetSRID(g, 0), 4326)"):
        with pytest.raises(psycopg.Error) as caught:
            render(conn, compiled(conn, expression))
        assert isinstance(classify_error(caught.value, "cannot render"), Reject), caught.value


def test_a_constant_refused_by_postgis_is_reported_with_its_line(conn: psycopg.Connection[Any]) -> None:
    install(conn, postgis="public")
    conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
    text = "name: t\nroot: {table: t}\ndocument:\n  a: id\n  b: ST_GeomFromText('POINT(', 4326)\nsink: {m: {}}\n"
    model = parse(text, "m.yaml")
    catalog = load(conn, tables(model))
    with pytest.raises(Fatal, match="PostgreSQL rejects ST_GeomFromText") as caught:
        plan(conn, model, catalog, compile(model, catalog))
    assert caught.value.where == "m.yaml:5"


def test_the_functions_of_postgis_depend_only_on_their_arguments(conn: psycopg.Connection[Any]) -> None:
    install(conn, postgis="public")
    found = conn.execute(
        "SELECT p.proname, p.oid::regprocedure::text, p.provolatile, p.prokind, p.proretset"
        "  FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'"
        " WHERE p.proname = ANY (%s)",
        [list(FUNCTIONS)],
    ).fetchall()
    assert {row[0] for row in found} == set(FUNCTIONS)
    unfit = [row[1] for row in found if (row[2], row[3], row[4]) != ("i", "f", False)]
    assert unfit == ["st_asgeojson(record,text,integer,boolean)"]  # takes a record, which no expression can contain


def test_shapes_and_hstore_are_searchable(conn: psycopg.Connection[Any], stack: Stack, index: Index) -> None:
    install(conn, postgis="public", hstore="public")
    conn.execute("CREATE TABLE t (id int PRIMARY KEY, loc geometry(Point, 4326), attrs hstore, tags text[])")
    conn.execute(
        "INSERT INTO t VALUES (1, 'SRID=4326;POINT(13.4 52.5)', 'color=>red', '{a,b}'),"
        " (2, 'SRID=4326;POINT(2.3 48.9)', 'color=>blue', '{c}'), (3, NULL, NULL, NULL)"
    )
    model = compiled(conn, "loc", "attrs", "tags")
    sink = index(model.fields)
    documents = {str(n): text.encode() for n, text in enumerate(render(conn, model), 1)}
    assert sink.write(Batch(1, documents, [])).written == 3
    near: dict[str, Any] = {"geo_distance": {"distance": "50km", "f0": {"lat": 52.4, "lon": 13.3}}}
    assert hits(stack, sink, near) == ["1"]
    assert hits(stack, sink, {"term": {"f1.color": "blue"}}) == ["2"]
    assert hits(stack, sink, {"term": {"f2.keyword": "b"}}) == ["1"]
    assert sink.read(["1"]) == {"1": documents["1"]}
