"""Every type that a column can have: its derived mapping takes the JSON of its values, or `check` refuses it.

Elasticsearch's build for tests has no `geo_shape`: there the mapping and the document are looked at.
"""

# ruff: noqa: E501 - a type is a line

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import urllib3
from psycopg import sql

from devstack import Stack
from syncer import sinks
from syncer.declaration.compile import Compiled, Field, compile
from syncer.declaration.model import parse, tables
from syncer.document import Batch
from syncer.errors import Fatal
from syncer.rows.catalog import load
from syncer.rows.session import PINNED
from syncer.sinks import _mapping
from syncer.sinks.elasticsearch import ElasticsearchSink
from tests.stack import Database, Names

EXTENSIONS = {"hstore": "public", "citext": "public", "ltree": "odd", "cube": "public", "isn": "public",
              "seg": "public", "intarray": "public", "pg_trgm": "public", "postgis": "Geo data"}  # fmt: skip


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
        conn.execute(
            sql.SQL("CREATE EXTENSION {} SCHEMA {}").format(sql.Identifier(extension), sql.Identifier(schema))
        )


def compiled(conn: psycopg.Connection[Any], *fields: str, more: str = "") -> Compiled:
    """A read model of the table `t`; the fields are called f0, f1 and so on."""
    text = "".join(f"  f{n}: {json.dumps(field)}\n" for n, field in enumerate(fields))
    model = parse(f"name: t\nroot: {{table: t}}\ndocument:\n{text}{more}sink: {{m: {{}}}}\n", "m.yaml")
    return compile(model, load(conn, tables(model)))


def render(conn: psycopg.Connection[Any], model: Compiled) -> list[str]:
    """The documents of all rows, rendered as the daemon does: with `pg_catalog` as search path."""
    ids = [str(row[0]) for row in conn.execute("SELECT id FROM public.t ORDER BY id")]
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        rows = conn.execute(model.render.encode(), [ids]).fetchall()
    found = {row[0]: row[2] for row in rows}
    return [found[id] for id in ids]


def index(
    stack: Stack, names: Names, fields: tuple[Field, ...], mapping: dict[str, Any] | None = None
) -> ElasticsearchSink:
    from tests.contracts.sinks import compiled as read_model

    settings = {
        "index": names("types"), "mapping": mapping or {},
        "settings": {"number_of_replicas": 0, "mapping.total_fields.limit": 5000},
    }  # fmt: skip
    link = {"url": stack.elasticsearch}
    sink = sinks.build("elasticsearch", settings, model=read_model(names("types"), fields), connection=link)
    assert isinstance(sink, ElasticsearchSink)
    sink.prepare()
    return sink


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
# Name → values that its input function takes. A type that is not here takes one of FALLBACK.
VALUES: dict[str, list[str]] = {
    "smallint": ["-32768"], "integer": ["2147483647"], "bigint": ["-9223372036854775808"],
    "numeric": ["1.50", "NaN", "Infinity", "-Infinity", "1" + "0" * 400, "0." + "1" * 900],
    "real": ["0.1", "NaN", "-Infinity"], "double precision": ["1e308", "5e-324", "NaN", "Infinity"],
    "boolean": ["t"], "oid": ["4294967295"], "xid": ["4294967295"], "cid": ["1"], "xid8": ["1"],
    "tid": ["(0,1)"], "bytea": ["\\xdeadbeef", "\\x" + "00" * 40_000],
    "text": ["a\n\"b\"\\ \u2028 ü", "x" * 40_000, ""], "character varying": ["x" * 40_000],
    "character": ["a"], '"char"': ["\\377"], "name": ["n"],
    "date": ["2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"],
    "timestamp without time zone": ["2024-02-29 12:34:56.789012", "infinity", "0044-03-15 BC", "294276-12-31"],
    "timestamp with time zone": ["2024-02-29 12:34:56.789+02", "-infinity", "4713-01-02 00:00+00 BC"],
    "time without time zone": ["24:00"], "time with time zone": ["10:00+15:59"],
    "interval": ["1 year -2 days 03:04:05.6", "-178000000 years"],
    "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"],
    "json": ['{"a":\n [1, {"b": null}]}', "1", '"x"', "[1]", "null"],
    "jsonb": ['{"a": [1, {"b": null}], "": {"..": 1}}', "1", '"x"', "[[1]]", "null"],
    "jsonpath": ["$.a"], "xml": ["<a>\n</a>"], "bit": ["1"], "bit varying": ["10", ""],
    "inet": ["10.0.0.1/8", "::1"], "cidr": ["10.0.0.0/8"], "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"], "pg_lsn": ["16/B374D848"], "tsvector": ["a b"],
    "tsquery": ["a & b"], "point": ["(1,2)", "(NaN,Infinity)"], "line": ["{1,2,3}"], "lseg": ["[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"], "path": ["((0,0),(1,1))"], "polygon": ["((0,0),(1,1),(1,0))"],
    "circle": ["<(0,0),1>"], "pg_snapshot": ["1:1:"], "txid_snapshot": ["1:1:"], "aclitem": ["syncer=r/syncer"],
    "refcursor": ["c"], "int2vector": ["1 2"], "oidvector": ["1 2"], "gtsvector": [],
    "public.hstore": ['"a b"=>1, c=>NULL, ""=>x, d.e=>"' + "y" * 40_000 + '"', ""], "public.attributes": ["a=>1"],
    "public.mood": ["so so"], "public.moods": ["{sad,NULL}"], "public.speaking": ["yes"],
    "public.pair": ["(1,)", '(,"{""a"":1}")'], "public.pairs": ["(1,)"], "public.span": ["[1,2)", "empty"],
    "public.cube": ["(1,2),(3,4)"], "odd.lquery": ["a.*"], "odd.ltxtquery": ["a & b"], "odd.ltree": ["a.b"],
    "public.seg": ["1 .. 2"], "public.query_int": ["1&2"], '"Geo data".geometry': _SHAPES,
    '"Geo data".geography': _SHAPES[:2], "public.place": _SHAPES, "public.area": _SHAPES[:1],
    '"Geo data".box2d': ["BOX(1 2,3 4)"], '"Geo data".box3d': ["BOX3D(1 2 3,4 5 6)"],
    '"Geo data".spheroid': ['SPHEROID["WGS 84",6378137,298.257]'],
    "public.ean13": ["978-0-393-04002-9"], "public.isbn13": ["978-0-393-04002-9"], "public.isbn": ["0393040029"],
    "public.ismn13": ["979-0-060-11561-5"], "public.ismn": ["M-060-11561-5"], "public.issn13": ["977-1436-452-00-8"],
    "public.issn": ["1436-4522"], "public.upc": ["220356483481"],
}  # fmt: skip
FALLBACK = ["1", "a", "empty", "{}", "{NULL}", "()", "(,)", "(,,)", "(,,,)", "2024-02-29", "YES"]
# Their input functions take nothing: PostgreSQL keeps them for itself.
UNWRITABLE = re.compile(r"pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin_\w+|gtsvector"
                        r"|.*\.(ghstore|gtrgm|ltree_gist|box2df|gidx|intbig_gkey|gseg)")  # fmt: skip
GEOMETRY = '"Geo data".geometry'
REFUSED = re.compile(r"(money|reg\w+)(\[\])?")
ALL = """
SELECT CASE WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, NULL)
            ELSE coalesce(quote_ident(en.nspname) || '.' || quote_ident(e.typname) || '[]',
                          quote_ident(n.nspname) || '.' || quote_ident(t.typname)) END, e.oid IS NOT NULL
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
    """A table with a column of every type, and its rows; type → column."""
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        found: list[tuple[str, bool]] = conn.execute(ALL.encode()).fetchall()
    columns = {type_: f"c{n}" for n, (type_, _) in enumerate(found)}
    listed = ", ".join(f"{column} {type_}" for type_, column in columns.items())
    conn.execute(f"CREATE TABLE t (id int PRIMARY KEY, {listed})".encode())
    conn.execute("INSERT INTO t SELECT generate_series(0, 6)")
    for type_, is_array in found:
        element = type_.removesuffix("[]") if is_array else type_
        values = VALUES.get(element) or FALLBACK
        taken = 0
        for row, value in enumerate(values):
            made = f"ARRAY[ARRAY[%s::{element}, NULL]]" if is_array else f"%s::{element}"
            row = row if element in VALUES else 0
            try:
                with conn.transaction():
                    statement = f"UPDATE t SET {columns[type_]} = {made} WHERE id = {row} AND {columns[type_]} IS NULL"
                    conn.execute(statement.encode(), [value])
                taken += 1
            except psycopg.Error:
                if element in VALUES and not UNWRITABLE.fullmatch(element):
                    raise
        assert bool(taken) != bool(UNWRITABLE.fullmatch(element)), f"{type_}: no value is known for it"
    return columns


def test_the_derived_mapping_of_every_type_takes_its_values(
    conn: psycopg.Connection[Any], stack: Stack, names: Names
) -> None:
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
    sink = index(stack, names, model.fields, shaped)
    documents = render(conn, model)
    assert not any("\n" in document for document in documents)
    out = sink.write(Batch(1, {str(n): text.encode() for n, text in enumerate(documents)}, []))
    assert out.refused == []
    assert out.written == len(documents)
    assert {t: kinds[t].type for t in ("public.attributes", "public.place", "public.area")} == {
        "public.attributes": "hstore", "public.place": "geojson point", "public.area": "geojson",
    }  # fmt: skip
    for type_, field in kinds.items():
        values = [
            value for value in (json.loads(text)[field.name] for text in documents) if value is not None
        ]
        for value in values:
            assert fits(field, value), f"{type_} is {field.type}, its JSON {json.dumps(value)[:80]}"


def refusal(conn: psycopg.Connection[Any], expression: str) -> Fatal | None:
    try:
        compiled(conn, expression)
    except Fatal as error:
        return error
    return None


def fits(field: Field, value: Any) -> bool:
    """Whether a value is the JSON that the type of its field stands for."""
    if field.many and isinstance(value, list):
        return all(fits(field, item) for item in value if item is not None)
    mapped = _mapping.derive([field])[field.name]
    if mapped == {"type": "object", "enabled": False}:
        return True
    return isinstance(value, dict) == (mapped["type"] in ("flattened", "geo_point", "geo_shape"))
