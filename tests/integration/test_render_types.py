"""Renders values and keys of every type, and checks that plans use indexes."""

# ruff: noqa: E501 - a case is a line

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse, tables
from syncer.errors import Fatal
from syncer.postgres.catalog import load
from syncer.postgres.session import PINNED
from tests.harness import Database


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect() as session:
        for name, value in PINNED.items():
            if name != "default_transaction_read_only":
                session.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        yield session


def compiled(conn: psycopg.Connection[Any], text: str) -> Compiled:
    model = parse(text, "m.yaml")
    return compile(model, load(conn, tables(model)))


def single(conn: psycopg.Connection[Any], table: str, *columns: str, key: str = "id") -> Compiled:
    fields = "".join(f"  {c}: {json.dumps(c)}\n" for c in columns)
    return compiled(conn, f"name: t\nroot: {{table: {table}}}\ndocument:\n{fields}sink: {{m: {{}}}}\n")


VALUES = [
    ("numeric", "123456789012345678901234567890.1234567890", "123456789012345678901234567890.1234567890"),
    ("numeric", "1.00", "1.00"),
    ("numeric", "NaN", '"NaN"'),
    ("numeric", "Infinity", '"Infinity"'),
    ("numeric(10,2)", "-0.5", "-0.50"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("float8", "1e308", "1e+308"),
    ("float8", "-Infinity", '"-Infinity"'),
    ("real", "0.1", "0.1"),
    ("text", 'a\n"b"\\ \u2028 ü', '"a\\n\\"b\\"\\\\ \u2028 ü"'),
    ("char(4)", "ab", '"ab  "'),
    ("boolean", "true", "true"),
    ("date", "infinity", '"infinity"'),
    ("date", "0044-03-15 BC", '"0044-03-15 BC"'),
    ("timestamp", "2024-02-29 12:34:56.789", '"2024-02-29T12:34:56.789"'),
    ("timestamp", "-infinity", '"-infinity"'),
    ("timestamptz", "2024-02-29 12:34:56.789+02", '"2024-02-29T10:34:56.789+00:00"'),
    ("timestamptz", "infinity", '"infinity"'),
    ("time", "24:00", '"24:00:00"'),
    ("timetz", "10:00+02", '"10:00:00+02"'),
    ("interval", "1 year -2 days 03:04:05.6", '"P1Y-2DT3H4M5.6S"'),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
    ("bytea", "\\xDEADbeef", '"\\\\xdeadbeef"'),
    ("mood", "so so", '"so so"'),
    ("moods", "{sad,NULL}", '["sad",null]'),
    ("json", '{"a":\n  [1, 2.50], "a": "\\n"}', '{"a": "\\n"}'),
    ("jsonb", '{"b":1,"a":[1,2.50]}', '{"a": [1, 2.50], "b": 1}'),
    ("json[]", '{"{\\"a\\":\n1}",NULL}', '[{"a": 1},null]'),
    ("int[]", "{{1,2},{3,NULL}}", "[[1,2],[3,null]]"),
    ("numeric[]", "{1.0,1.00}", "[1.0,1.00]"),
    ("timestamptz[]", "{2024-01-01 00:00+01}", '["2023-12-31T23:00:00+00:00"]'),
    ("int4range", "[1,5]", '"[1,6)"'),
    ("tstzrange", "[2024-01-01 00:00+00,)", '"[\\"2024-01-01 00:00:00+00\\",)"'),
    ("int4multirange", "{[1,2],[4,5]}", '"{[1,3),[4,6)}"'),
    ("inet", "10.0.0.1/8", '"10.0.0.1/8"'),
    ("bit(4)", "1010", '"1010"'),
    ("xml", "<a>\n</a>", '"<a>\\n</a>"'),
    ("point", "(1,2)", '"(1,2)"'),
    ("pair", '(1,"{""a"":\n 2}")', '{"j": {"a": 2}, "n": 1}'),
    ("pair[]", '{"(1,)"}', '[{"j": null, "n": 1}]'),
    ("citext", "Ab", '"Ab"'),
    ("posint", "7", "7"),
    ("tsvector", "a b", "\"'a' 'b'\""),
]


def test_each_type_keeps_its_value_on_one_line(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET search_path = public")
    conn.execute("CREATE EXTENSION citext")
    conn.execute("CREATE TYPE mood AS ENUM ('sad', 'so so')")
    conn.execute("CREATE DOMAIN moods AS mood[]")
    conn.execute("CREATE TYPE pair AS (n int, j json)")
    conn.execute("CREATE DOMAIN posint AS int CHECK (value > 0)")
    columns = ", ".join(f"c{i} {type_}" for i, (type_, _, _) in enumerate(VALUES))
    conn.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})".encode())
    marks = ", ".join("%s" for _ in VALUES)
    conn.execute(f"INSERT INTO t VALUES (1, {marks})".encode(), [value for _, value, _ in VALUES])
    conn.execute("INSERT INTO t VALUES (2)")
    conn.execute("SET search_path = pg_catalog")
    model = single(conn, "t", *(f"c{i}" for i in range(len(VALUES))))
    (full, empty) = (row[2] for row in sorted(conn.execute(model.render.encode(), [["1", "2"]]).fetchall()))
    assert full == "{" + ",".join(f'"c{i}":{text}' for i, (_, _, text) in enumerate(VALUES)) + "}"
    assert empty == "{" + ",".join(f'"c{i}":null' for i in range(len(VALUES))) + "}"
    assert "\n" not in full
    json.loads(full)


@pytest.mark.parametrize(
    ("type_", "stored", "asked", "id"),
    [
        ("numeric", "1.0", "1.00", "1.0"),
        ("char(5)", "ab", "ab   ", "ab"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", None),
        ("date", "2024-02-29", "2024-02-29", None),
        ("timestamptz", "2024-02-29 12:00+02", "2024-02-29T10:00:00Z", "2024-02-29 10:00:00+00"),
        ("mood", "so so", "so so", None),
        ("posint", "7", "07", "7"),
        ("boolean", "t", "true", "true"),
        ("bytea", "\\x00ff", "\\x00FF", "\\x00ff"),
        ("bit(3)", "101", "101", None),
        ("text", "it's 100% \\ | ü", "it's 100% \\ | ü", None),
        ("varchar(9)", "a b", "a b", None),
        ("inet", "10.0.0.1", "10.0.0.1/32", "10.0.0.1/32"),
    ],
)
def test_keys_of_each_type(conn: psycopg.Connection[Any], type_: str, stored: str, asked: str, id: str | None) -> None:
    conn.execute("SET search_path = public")
    conn.execute("CREATE TYPE mood AS ENUM ('sad', 'so so')")
    conn.execute("CREATE DOMAIN posint AS int CHECK (value > 0)")
    conn.execute(
        f"CREATE TABLE t (id {type_} PRIMARY KEY, a int); CREATE TABLE u (t_id {type_}, n int PRIMARY KEY)".encode()
    )
    conn.execute("INSERT INTO t VALUES (%s, 1)", [stored])
    conn.execute("INSERT INTO u VALUES (%s, 1)", [stored])
    conn.execute("SET search_path = pg_catalog")
    text = "name: t\nroot: {table: t}\ndocument:\n  a: a\n  u: {many: u, on: {t_id: id}, value: n}\nsink: {m: {}}\n"
    model = compiled(conn, text)
    ((asked_id, own, document),) = conn.execute(model.render.encode(), [[asked]]).fetchall()
    assert own == (id or stored)
    assert document == '{"a":1,"u":[1]}'
    if type_ != "numeric":
        assert asked_id == own
    assert conn.execute(model.render_upto.encode(), [asked]).fetchall() == [(own, own, document)]
    lookup = model.table_uses[1].lookup
    assert lookup
    if lookup.sql is None:
        assert type_ in ("uuid", "text", "varchar(9)", "posint")
    else:
        assert conn.execute(lookup.sql.encode(), [[asked]]).fetchall() == [(own,)]


def test_equal_values_with_several_texts_are_aggregated_in_the_order_of_the_rows(conn: psycopg.Connection[Any]) -> None:
    """A numeric with a scale has one text for each value, so its aggregates need no sort."""
    conn.execute("CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    conn.execute("CREATE DOMAIN public.price AS numeric(6, 2)")
    conn.execute("CREATE TABLE public.t (id int PRIMARY KEY)")
    conn.execute(
        "CREATE TABLE public.u (id int PRIMARY KEY, t_id int, a numeric, b numeric(6,2), c public.price,"
        " d text COLLATE public.ci)"
    )
    conn.execute("INSERT INTO public.t VALUES (1)")
    rows = [(3, "1.000", "A"), (2, "1.00", "a"), (1, "1.0", "A")]
    for id, number, text in rows:
        conn.execute("INSERT INTO public.u VALUES (%s, 1, %s, %s, %s, %s)", [id, number, number, number, text])
    fields = [f"{name}(u.{column})" for column in "abcd" for name in ("min", "max")] + ["array(distinct u.d)"]
    text = "name: t\nroot: {table: t}\nrelations:\n  u: {many: u, on: {t_id: id}}\ndocument:\n"
    text += "".join(f"  f{n}: {field}\n" for n, field in enumerate(fields)) + "sink: {m: {}}\n"
    model = compiled(conn, text)
    document = conn.execute(model.render.encode(), [["1"]]).fetchall()[0][2]
    assert document == ('{"f0":1.000,"f1":1.000,"f2":1.00,"f3":1.00,"f4":1.00,"f5":1.00,"f6":"A","f7":"A","f8":["A"]}')
    sorted_columns = [
        column for column in "abcd" if f'max(t1."{column}" ORDER BY t1."id" ASC NULLS LAST)' in model.render
    ]
    assert sorted_columns == ["a", "d"]
    with pytest.raises(Fatal, match="equal texts can differ"):
        compiled(conn, text.replace("array(distinct u.d)", "string_agg(distinct u.d, '')"))


def test_types_of_extensions_can_be_shown_but_not_compared(conn: psycopg.Connection[Any]) -> None:
    conn.execute("CREATE EXTENSION citext SCHEMA public")
    conn.execute("CREATE TABLE public.t (id int PRIMARY KEY, email public.citext UNIQUE)")
    conn.execute("CREATE TABLE public.u (id int PRIMARY KEY, email public.citext)")
    conn.execute("INSERT INTO public.t VALUES (1, 'A@x')")
    model = single(conn, "t", "email", "email::text || '!'")
    assert (
        conn.execute(model.render.encode(), [["1"]]).fetchall()[0][2] == '{"email":"A@x","email::text || \'!\'":"A@x!"}'
    )
    with pytest.raises(Fatal, match="email::text"):
        single(conn, "t", "email = 'a@x'")
    linked = "name: u\nroot: {table: u}\ndocument:\n  t: {one: t, on: {email: email}, value: id}\nsink: {m: {}}\n"
    assert compiled(conn, linked).fields


SHOP = [
    "CREATE TABLE customers (id bigint PRIMARY KEY, name text)",
    "CREATE TABLE products (id bigint PRIMARY KEY, sku text, name text)",
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, status text, placed_at timestamptz)",
    "CREATE TABLE order_items (id bigint PRIMARY KEY, order_id bigint, product_id bigint, quantity int, unit_price numeric(10, 2))",
    "INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 5000) g",
    "INSERT INTO products SELECT g, 'sku' || g, 'product ' || g FROM generate_series(1, 2000) g",
    "INSERT INTO orders SELECT g, 1 + g * 7919 % 5000, 'paid', timestamptz '2024-01-01' + g * interval '1 minute' FROM generate_series(1, 50000) g",
    "INSERT INTO order_items SELECT g, 1 + g * 31 % 50000, 1 + g % 2000, 1 + g % 5, g % 1000 / 10.0 FROM generate_series(1, 150000) g",
    "CREATE INDEX ON orders (customer_id)",
    "CREATE INDEX ON order_items (order_id)",
    "CREATE INDEX ON order_items (product_id)",
    "ANALYZE",
]
ORDERS = """\
name: orders
root: {table: orders}
where: status <> 'draft'
document:
  order_id: id
  customer: {one: customers, on: {id: customer_id}, document: {id: id, name: name}}
  items:
    many: order_items
    on: {order_id: id}
    order_by: id
    limit: 50
    document:
      line_total: quantity * unit_price
      product: {one: products, on: {id: product_id}, document: {sku: sku, name: name}}
  total: sum(items.quantity * items.unit_price)
  first: first(items.product.name)
sink: {m: {}}
"""


def test_plans_use_indexes(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET search_path = public")
    for statement in SHOP:
        conn.execute(statement.encode())
    conn.execute("SET search_path = pg_catalog")
    model = compiled(conn, ORDERS)
    keys = [str(i) for i in range(1, 400, 2)]
    statements: list[tuple[str, list[Any]]] = [(model.render, [keys]), (model.render_between, ["100", "300"])]
    statements += [(o.lookup.sql, [["5", "7"]]) for o in model.table_uses if o.lookup and o.lookup.sql]
    assert len(statements) == 4
    for mode in ("force_custom_plan", "force_generic_plan"):
        conn.execute(f"SET plan_cache_mode = {mode}".encode())
        for sql, parameters in statements:
            plan = "\n".join(r[0] for r in conn.execute(f"EXPLAIN {sql}".encode(), parameters, prepare=True))
            for table in ("orders", "order_items"):
                assert f"Seq Scan on {table} " not in plan, plan
    ends = "\n".join(r[0] for r in conn.execute(f"EXPLAIN {model.boundaries}".encode(), [1000]))
    assert "Index Only Scan using orders_pkey" in ends
