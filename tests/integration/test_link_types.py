"""Links between columns of types that differ in text: renders and look-ups against plain SQL, on a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from typing import Any

import pytest
import redis

from devstack import Stack
from syncer.checks import check_model
from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse, tables
from syncer.declaration.trace_sql import trace_sql
from syncer.errors import Fatal
from syncer.pipeline.resolve import text
from syncer.postgres import validate_sql
from syncer.postgres.catalog import load
from syncer.postgres.session import PLANNING
from syncer.postgres.snapshot_reader import SnapshotReader
from tests.harness import Database
from tests.harness.daemon import Daemon
from tests.harness.database import fresh_database
from tests.harness.system import System
from tests.harness.waiting import until

UUIDS = (
    "00000000-0000-0000-0000-00000000000a",
    "0000000000000000000000000000000a",
    "00000000-0000-0000-0000-00000000000A",
)
TEXTS = (
    "7",
    "007",
    "+7",
    "-7",
    "-0",
    "0",
    " 7",
    "7 ",
    "7\n",
    "",
    "a",
    "A",
    "a ",
    "é",
    "abc",
    "1e1",
    "7.0",
    "99999999999999999999",
)
BIG = ("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809")
NUMBERS = ("7", "-7", "0", "32767", "-32768")
VALUES = {
    "text": (*TEXTS, *BIG, *NUMBERS[3:], *UUIDS),
    "varchar(60)": (*TEXTS, *BIG, *NUMBERS[3:], *UUIDS),
    "char(40)": ("7", "7 ", "007", "a", "A", "é", "", *BIG, *UUIDS),
    "smallint": NUMBERS,
    "integer": (*NUMBERS, "2147483647"),
    "bigint": (*NUMBERS, "9223372036854775807", "-9223372036854775808"),
    "uuid": ("00000000-0000-0000-0000-00000000000a", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "mood": ("a", "A", "7", "é"),
    "ext.citext": ("a", "A", "a ", "7", "é", "É", "", *UUIDS),
}
"""By type: values as text. Some are no value of another type, or another text of an equal value."""
TEXTUAL = ("text", "varchar(60)", "char(40)", "ext.citext")
PAIRS = [
    (one, other)
    for one, other in product(VALUES, VALUES)
    if one != other and (one in TEXTUAL or other in TEXTUAL) and {one, other} != {"text", "varchar(60)"}
]
ALL_PAIRS = 'SELECT o.k, i.k FROM {outer} o JOIN {inner} i ON o.v::text COLLATE "C" = i.v::text'


def name_of(type: str) -> str:
    return "t_" + "".join(c for c in type if c.isalpha())


def cast(type: str) -> str:
    return "v" if type in ("text", "varchar(60)") else "v::text"


@pytest.fixture(scope="module")
def database(postgres_alone: Stack) -> Iterator[Database]:
    with fresh_database(postgres_alone) as found:
        found.execute(
            "CREATE SCHEMA ext",
            "CREATE EXTENSION citext SCHEMA ext",
            "CREATE TYPE mood AS ENUM ('a', 'A', '7', 'é')",
        )
        for type, values in VALUES.items():
            rows = ", ".join(f"({n}, '{value}')" for n, value in enumerate(values))
            for table in (name_of(type), f"{name_of(type)}_below"):
                found.execute(
                    f"CREATE TABLE {table} (k int PRIMARY KEY, v {type})",
                    f"INSERT INTO {table} VALUES {rows}, (1000, NULL)",
                    f"CREATE INDEX ON {table} (v)",
                    f"ALTER TABLE {table} REPLICA IDENTITY FULL",
                )
        yield found


def load_all(database: Database, declaration: str) -> tuple[Catalog, Compiled]:
    model = parse(declaration, "m.yaml")
    with database.connect() as session:
        catalog = load(session, tables(model))
    return catalog, compile(model, catalog)


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_a_link_of_texts_finds_the_same_rows_as_sql_from_both_sides(database: Database, outer: str, inner: str) -> None:
    above, below = name_of(outer), f"{name_of(inner)}_below"
    declaration = f"""
name: m
root: {{table: {above}}}
document: {{found: {{many: {below}, on: {{"{cast(inner)}": "{cast(outer)}"}}, value: k}}}}
sink: {{memory: {{}}}}
"""
    model = parse(declaration, "m.yaml")
    catalog, compiled = load_all(database, declaration)
    assert not [f for f in check_model("m.yaml", compiled, catalog) if f.severity != "note"]
    linked = set(database.query(ALL_PAIRS.format(outer=above, inner=below)))
    roots = [str(k) for (k,) in database.query(f"SELECT k FROM {above}")]
    with closing(SnapshotReader({"conninfo": database.dsn}, compiled)) as reader, reader.view() as view:
        documents = {row.id: json.loads(row.body or b"") for row in view.render([(key,) for key in roots])}
        assert {(int(str(id)), k) for id, document in documents.items() for k in document["found"]} == linked
        lookup = compiled.table_uses[1].lookup
        assert lookup
        trace = trace_sql(model, catalog, compiled).uses[1]
        assert trace.leading
        for k, value in database.query(f"SELECT k, v::text FROM {below} WHERE v IS NOT NULL"):
            found = {int(root) for (root,) in view.look_up(lookup, [(text(value, lookup.types[0]),)])}
            assert found == {root for root, row in linked if row == k}, value
            for root in roots[:3]:
                leads = list(view.look_up(trace.leading, [(text(value, lookup.types[0]), root)]))
                assert bool(leads) == ((int(root), k) in linked)
        for root in roots:
            rows = {int(k) for (k,) in view.look_up(trace.rows, [(root,)])}
            assert rows == {row for above, row in linked if above == int(root)}
    assert f"{above}_v_idx" in explained(database, lookup.sql or "")
    assert f"{below}_v_idx" in explained(database, compiled.render)


ELEMENTS = {type: [*VALUES[type], None] for type in ("smallint", "integer", "bigint", "text", "varchar(60)", "uuid")}
INTEGERS = {"smallint", "integer", "bigint"}
ARRAY_PAIRS = [
    (key, element)
    for key, element in product(ELEMENTS, ELEMENTS)
    if key == element or {key, element} <= INTEGERS or {key, element} <= {"text", "varchar(60)"}
]


@pytest.fixture(scope="module")
def arrays(database: Database) -> Database:
    """Creates tables with arrays: single values, all values, repeated values, two dimensions, none and NULL."""
    for type, values in ELEMENTS.items():
        name = f"{name_of(type)}_lists"
        rows = [[value] for value in values] + [values, values[:2] * 2, [], [values[:2], values[1:3]], None]
        database.execute(
            f"CREATE TABLE {name} (k int PRIMARY KEY, v {type}[])",
            f"CREATE INDEX ON {name} USING gin (v)",
            f"ALTER TABLE {name} REPLICA IDENTITY FULL",
        )
        with database.connect() as session:
            for k, row in enumerate(rows):
                session.execute(f"INSERT INTO {name} VALUES (%s, %s::text[]::{type}[])".encode(), (k, row))
            session.commit()
    return database


@pytest.mark.parametrize(("key", "element"), ARRAY_PAIRS)
@pytest.mark.parametrize("outer", ["array", "key"])
def test_a_link_by_an_array_finds_the_same_rows_as_sql_from_both_sides(
    arrays: Database, key: str, element: str, outer: str
) -> None:
    lists, keys = f"{name_of(element)}_lists", f"{name_of(key)}_below"
    above, below, on = (lists, keys, "{v: any(v)}") if outer == "array" else (keys, lists, '{"any(v)": v}')
    declaration = f"""
name: m
root: {{table: {above}}}
document: {{found: {{many: {below}, on: {on}, value: k}}}}
sink: {{memory: {{}}}}
"""
    model = parse(declaration, "m.yaml")
    catalog, compiled = load_all(arrays, declaration)
    assert not [f for f in check_model("m.yaml", compiled, catalog) if f.severity != "note"]
    linked = set(
        arrays.query(
            f"SELECT DISTINCT a.k, b.k FROM {lists} l CROSS JOIN unnest(l.v) e JOIN {keys} o ON o.v = e,"
            f" {above} a, {below} b WHERE array_ndims(l.v) = 1"
            f" AND (a.k, b.k) = ({'l.k, o.k' if outer == 'array' else 'o.k, l.k'})"
        )
    )
    assert linked
    roots = [str(k) for (k,) in arrays.query(f"SELECT k FROM {above}")]
    elements = "unnest(v)" if outer == "key" else "v"
    with closing(SnapshotReader({"conninfo": arrays.dsn}, compiled)) as reader, reader.view() as view:
        documents = {row.id: json.loads(row.body or b"") for row in view.render([(key,) for key in roots])}
        assert sorted((int(str(id)), k) for id, document in documents.items() for k in document["found"]) == sorted(
            linked
        ), "each row occurs once"
        lookup = compiled.table_uses[1].lookup
        assert lookup and lookup.sql
        trace = trace_sql(model, catalog, compiled).uses[1]
        assert trace.leading
        flat = "array_ndims(v) = 1" if outer == "key" else "true"
        for (k,) in arrays.query(f"SELECT k FROM {below}"):
            rows_of = arrays.query(f"SELECT {elements}::text FROM {below} WHERE k = {k} AND {flat}")
            asked = [(value,) for (value,) in rows_of if value is not None]
            found = {int(root) for (root,) in view.look_up(lookup, asked)}
            assert found == {root for root, row in linked if row == k}, rows_of
            for root in roots[:3]:
                leads = list(view.look_up(trace.leading, [(value, root) for (value,) in asked]))
                assert bool(leads) == ((int(root), k) in linked)
        for root in roots:
            rows = {int(k) for (k,) in view.look_up(trace.rows, [(root,)])}
            assert rows == {row for above, row in linked if above == int(root)}
    assert f"{above}_v_idx" in explained(arrays, lookup.sql)


LARGE = (
    "CREATE TABLE teams (id bigint PRIMARY KEY, member_ids int[])",
    "CREATE TABLE people (id bigint PRIMARY KEY)",
    "INSERT INTO people SELECT n FROM generate_series(1, 20000) n",
    "INSERT INTO teams SELECT n, ARRAY[n, n + 1, n % 7] FROM generate_series(1, 20000) n",
    "CREATE INDEX ON teams USING gin (member_ids)",
    "ALTER TABLE teams REPLICA IDENTITY FULL",
    "ANALYZE teams, people",
)


@pytest.mark.parametrize(
    ("root", "below", "on"),
    [("teams", "people", "{id: any(member_ids)}"), ("people", "teams", '{"any(member_ids)": id}')],
)
def test_renders_and_look_ups_by_arrays_use_the_indexes(database: Database, root: str, below: str, on: str) -> None:
    database.execute("DROP TABLE IF EXISTS teams, people", *LARGE)
    nested = f"{{many: {below}, on: {on}, document: {{id: id, again: {{many: {below}, on: {{id: id}}, value: id}}}}}}"
    declaration = f"name: m\nroot: {{table: {root}}}\ndocument: {{found: {nested}}}\nsink: {{memory: {{}}}}\n"
    _, compiled = load_all(database, declaration)
    searched = "Index Cond: (id = ANY (" if root == "teams" else "Index Cond: (member_ids @> ARRAY["
    assert searched in explained(database, compiled.render)
    lookup = compiled.table_uses[2].lookup
    assert lookup and lookup.sql
    searched = "Index Cond: (member_ids @> ARRAY[" if root == "teams" else "Index Cond: (id = ANY ("
    assert searched in explained(database, lookup.sql)


def test_a_look_up_that_postgresql_rejects_is_found_by_check(database: Database) -> None:
    """The labels of a domain over an enum cannot be read as those of an enum."""
    database.execute("CREATE DOMAIN feeling AS mood", "CREATE TABLE t_feeling (k int PRIMARY KEY, v feeling)")
    declaration = """
name: m
root: {table: t_feeling}
document: {found: {many: t_text_below, on: {v: "v::text"}, value: k}}
sink: {memory: {}}
"""
    catalog, compiled = load_all(database, declaration)
    model = parse(declaration, "m.yaml")
    with database.connect() as session, pytest.raises(Fatal, match="PostgreSQL rejects the statement"):
        validate_sql.plan(session, model, catalog, compiled)


def explained(database: Database, statement: str) -> str:
    with database.connect() as session:
        for name, value in PLANNING.items():
            session.execute("SELECT set_config(%s, %s, false)", (name, value))
        return "\n".join(row[0] for row in session.execute(f"EXPLAIN {statement}".encode(), [["1"]]))


# -- through Debezium, Kafka and the daemon -----------------------------------------------------------------

SETUP = (
    "CREATE EXTENSION IF NOT EXISTS citext SCHEMA public",
    "CREATE EXTENSION IF NOT EXISTS ltree SCHEMA public",
    """CREATE TABLE {schema}.posts (id bigint PRIMARY KEY, code char(8), ref uuid, owner_type text, owner_id bigint,
        email public.citext, area public.ltree)""",
    "CREATE TABLE {schema}.comments (id int PRIMARY KEY, target_type text, target_id text, body text)",
    "CREATE TABLE {schema}.labels (label varchar(20) PRIMARY KEY, shown text)",
    "CREATE TABLE {schema}.covers (kind text, of text, url text, PRIMARY KEY (kind, of))",
    "CREATE TABLE {schema}.companies (id bigint PRIMARY KEY, name text)",
    "CREATE TABLE {schema}.people (id bigint PRIMARY KEY, name text)",
    "CREATE TABLE {schema}.accounts (email public.citext PRIMARY KEY, name text)",
    "CREATE TABLE {schema}.areas (path public.ltree PRIMARY KEY, name text)",
    "CREATE INDEX ON {schema}.comments (target_type, target_id)",
    "CREATE INDEX ON {schema}.posts (owner_type, owner_id)",
    *(f"CREATE INDEX ON {{schema}}.posts ({column})" for column in ("code", "ref", "email", "area")),
    *(
        f"ALTER TABLE {{schema}}.{table} REPLICA IDENTITY FULL"
        for table in ("posts", "comments", "labels", "covers", "companies", "people", "accounts", "areas")
    ),
)
POSTS = """
name: {prefix}-posts
root: {{table: {schema}.posts}}
document:
  code: code
  comments: {{many: {schema}.comments, on: {{target_id: "id::text"}}, where: target_type = 'Post', value: body}}
  label: {{one: {schema}.labels, on: {{label: "code::text"}}, value: shown}}
  cover: {{one: {schema}.covers, on: {{of: "ref::text"}}, where: kind = 'Post', value: url}}
  company: {{one: {schema}.companies, on: {{id: owner_id}}, when: owner_type = 'Company', value: name}}
  person: {{one: {schema}.people, on: {{id: owner_id}}, when: owner_type = 'Person', value: name}}
  account: {{one: {schema}.accounts, on: {{email: email}}, value: name}}
  area: {{one: {schema}.areas, on: {{path: area}}, value: name}}
sink: {{redis: {{key: "{prefix}:post:{{id}}"}}}}
"""
COMMENTS = """
name: {prefix}-comments
root: {{table: {schema}.comments}}
document:
  body: body
  post:
    one: {schema}.posts
    on: {{"id::text": target_id}}
    when: target_type = 'Post'
    document: {{code: code, label: {{one: {schema}.labels, on: {{label: "code::text"}}, value: shown}}}}
sink: {{redis: {{key: "{prefix}:comment:{{id}}"}}}}
"""
EXPECTED = {
    "post": """
SELECT p.id::text, json_build_object('code', p.code,
       'comments', coalesce((SELECT json_agg(c.body ORDER BY c.id) FROM {schema}.comments c
                              WHERE c.target_type = 'Post' AND c.target_id = p.id::text), '[]'),
       'label', (SELECT l.shown FROM {schema}.labels l WHERE l.label = p.code::text),
       'cover', (SELECT c.url FROM {schema}.covers c WHERE c.kind = 'Post' AND c.of = p.ref::text),
       'company', (SELECT c.name FROM {schema}.companies c WHERE c.id = p.owner_id AND p.owner_type = 'Company'),
       'person', (SELECT c.name FROM {schema}.people c WHERE c.id = p.owner_id AND p.owner_type = 'Person'),
       'account', (SELECT a.name FROM {schema}.accounts a WHERE a.email = p.email),
       'area', (SELECT a.name FROM {schema}.areas a WHERE a.path = p.area))
  FROM {schema}.posts p""",
    "comment": """
SELECT c.id::text, json_build_object('body', c.body, 'post',
       (SELECT json_build_object('code', p.code, 'label',
               (SELECT l.shown FROM {schema}.labels l WHERE l.label = p.code::text))
          FROM {schema}.posts p WHERE p.id::text = c.target_id AND c.target_type = 'Post'))
  FROM {schema}.comments c""",
}
ONE, TWO = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"
STEPS = (
    (
        "INSERT INTO {schema}.companies VALUES (1, 'Acme'), (2, 'Bolt')",
        "INSERT INTO {schema}.people VALUES (1, 'Ada'), (2, 'Grace')",
        "INSERT INTO {schema}.accounts VALUES ('Ada@Example.org', 'ada')",
        "INSERT INTO {schema}.areas VALUES ('top.books', 'Books')",
        "INSERT INTO {schema}.labels VALUES ('new', 'New!'), ('new ', 'blank'), ('sale', 'Sale')",
        f"INSERT INTO {{schema}}.covers VALUES ('Post', '{ONE}', 'one.png'), ('Page', '{TWO}', 'page.png')",
        f"""INSERT INTO {{schema}}.posts VALUES (7, 'new', '{ONE}', 'Company', 1, 'ada@example.org', 'top.books'),
            (8, 'sale', '{TWO}', 'Person', 1, 'ADA@EXAMPLE.ORG', 'top'), (-9, NULL, NULL, NULL, 1, NULL, NULL)""",
        """INSERT INTO {schema}.comments VALUES (1, 'Post', '7', 'a'), (2, 'Post', '007', 'b'), (3, 'Post', 'abc', 'c'),
            (4, 'Page', '7', 'd'), (5, 'Post', '-9', 'e'), (6, 'Post', '99999999999999999999', 'f')""",
    ),
    ("UPDATE {schema}.comments SET body = body || '!'",),
    ("UPDATE {schema}.comments SET target_id = '8' WHERE id IN (1, 3)",),
    ("UPDATE {schema}.comments SET target_type = 'Post' WHERE id = 4", "DELETE FROM {schema}.comments WHERE id = 1"),
    ("UPDATE {schema}.comments SET target_id = 'x' WHERE target_id = '8'",),
    ("UPDATE {schema}.labels SET shown = shown || '2'", "UPDATE {schema}.covers SET url = 'x' || url"),
    ("UPDATE {schema}.companies SET name = name || '2'", "UPDATE {schema}.people SET name = name || '2'"),
    ("UPDATE {schema}.posts SET owner_type = 'Person' WHERE id = 7",),
    ("UPDATE {schema}.people SET name = name || '3'", "UPDATE {schema}.companies SET name = name || '3'"),
    ("UPDATE {schema}.accounts SET email = 'aDA@example.ORG'", "UPDATE {schema}.areas SET name = 'All' "),
    ("UPDATE {schema}.accounts SET name = 'ada 2'",),
    ("UPDATE {schema}.accounts SET email = 'other@example.org'", "UPDATE {schema}.areas SET path = 'top'"),
    ("UPDATE {schema}.labels SET label = 'old' WHERE label = 'new'", "UPDATE {schema}.covers SET kind = 'Post'"),
    ("UPDATE {schema}.posts SET code = 'old', ref = NULL WHERE id = 7",),
    ("DELETE FROM {schema}.labels WHERE label = 'sale'",),
    ("UPDATE {schema}.posts SET id = 99 WHERE id = 7", "UPDATE {schema}.comments SET target_id = '99' WHERE id = 2"),
    ("DELETE FROM {schema}.posts WHERE id = 99", "DELETE FROM {schema}.companies", "DELETE FROM {schema}.covers"),
)


def compare(system: System, daemon: Daemon, expected: dict[str, str], step: object) -> None:
    """Waits until the documents in Redis equal SQL. expected: a query for the documents, by the kind in their keys."""

    def written(kind: str) -> dict[str, Any]:
        prefix = f"{system.prefix}:{kind}:"
        with redis.Redis.from_url(system.redis) as client:
            keys: Any = list(client.scan_iter(f"{prefix}*", count=1000))
            values: Any = client.mget(keys) if keys else []
        found = zip(keys, values, strict=True)
        return {key.decode().removeprefix(prefix): json.loads(value) for key, value in found if value}

    wanted = {
        kind: dict(system.database.query(query.replace("{schema}", system.schema))) for kind, query in expected.items()
    }

    def found() -> dict[str, Any]:
        return {kind: written(kind) for kind in expected}

    until(lambda: found() == wanted, lambda: f"{step}\n{found()}\n{wanted}\n{daemon.log.read_text()}")


def test_documents_with_links_of_other_types_and_conditions_equal_sql(system: System) -> None:
    system.execute(*SETUP)
    system.declare("orders", POSTS)
    system.declare("summaries", COMMENTS)
    names = [f"{system.prefix}-{kind}s" for kind in EXPECTED]
    checked = system.run("check")
    assert "no-index" not in checked and "no index" not in checked
    daemon = system.start(*names)

    for step in STEPS:
        system.execute(*step)
        compare(system, daemon, EXPECTED, step)
        if step is STEPS[1]:
            change = json.loads(system.run("trace", names[0], "7", "--json", "--patience", "0"))["changes"]
            assert {c["key"] for c in change if c["table"].endswith("comments")} == {"1", "4"}
    for name in names:
        assert system.dead_letters(name) == []
    assert "only if owner_type = 'Company'" in system.run("explain", names[0])


# -- arrays of keys, and a table with a unique index instead of a primary key ------------------------------

ARRAYS_SETUP = (
    """CREATE FUNCTION {schema}.flat(anyarray) RETURNS anyarray LANGUAGE sql
        AS 'SELECT CASE WHEN array_ndims($1) = 1 THEN $1 END'""",
    "CREATE TABLE {schema}.teams (id bigint PRIMARY KEY, name text, member_ids int[], codes varchar(9)[], refs uuid[])",
    "CREATE TABLE {schema}.people (id int PRIMARY KEY, code text UNIQUE, ref uuid UNIQUE, name text)",
    """CREATE TABLE {schema}.badges (label text, holder_ids bigint[], holder_codes text[], slot smallint[],
        n int NOT NULL, CONSTRAINT badges_n UNIQUE (n))""",
    "CREATE UNIQUE INDEX another ON {schema}.badges (label)",
    *(f"ALTER TABLE {{schema}}.{table} REPLICA IDENTITY FULL" for table in ("teams", "people", "badges")),
)
ARRAYS_INDEXES = (
    *(f"CREATE INDEX ON {{schema}}.teams USING gin ({column})" for column in ("member_ids", "codes", "refs")),
    *(f"CREATE INDEX ON {{schema}}.badges USING gin ({column})" for column in ("holder_ids", "holder_codes", "slot")),
)
TEAMS = """
name: {prefix}-teams
root: {{table: {schema}.teams}}
document:
  name: name
  members:
    many: {schema}.people
    on: {{id: any(member_ids)}}
    document:
      name: name
      badges: {{many: {schema}.badges, on: {{"any(holder_ids)": id}}, value: label}}
      coded: {{many: {schema}.badges, on: {{"any(holder_codes)": code}}, value: n}}
  coded: {{many: {schema}.people, on: {{code: any(codes)}}, value: id}}
  referred: {{many: {schema}.people, on: {{ref: any(refs)}}, value: id}}
  badges: count(members.badges)
  slots: {{many: {schema}.badges, on: {{"any(slot)": id}}, value: n}}
sink: {{redis: {{key: "{prefix}:team:{{id}}"}}}}
"""
ARRAYS_EXPECTED = {
    "team": """
SELECT t.id::text, json_build_object('name', t.name,
       'members', coalesce((SELECT json_agg(json_build_object('name', p.name,
               'badges', coalesce((SELECT json_agg(b.label ORDER BY b.n) FROM {schema}.badges b
                                    WHERE p.id = ANY ({schema}.flat(b.holder_ids))), '[]'),
               'coded', coalesce((SELECT json_agg(b.n ORDER BY b.n) FROM {schema}.badges b
                                   WHERE p.code = ANY ({schema}.flat(b.holder_codes))), '[]')) ORDER BY p.id)
              FROM {schema}.people p WHERE p.id = ANY ({schema}.flat(t.member_ids))), '[]'),
       'coded', coalesce((SELECT json_agg(p.id ORDER BY p.id) FROM {schema}.people p
                           WHERE p.code = ANY ({schema}.flat(t.codes))), '[]'),
       'referred', coalesce((SELECT json_agg(p.id ORDER BY p.id) FROM {schema}.people p
                              WHERE p.ref = ANY ({schema}.flat(t.refs))), '[]'),
       'badges', (SELECT count(*) FROM {schema}.people p
                    JOIN {schema}.badges b ON p.id = ANY ({schema}.flat(b.holder_ids))
                   WHERE p.id = ANY ({schema}.flat(t.member_ids))),
       'slots', coalesce((SELECT json_agg(b.n ORDER BY b.n) FROM {schema}.badges b
                           WHERE t.id = ANY ({schema}.flat(b.slot))), '[]'))
  FROM {schema}.teams t"""
}
ARRAYS_STEPS = (
    (
        f"INSERT INTO {{schema}}.people VALUES (1, 'a', '{ONE}', 'Ada'), (2, 'b,\"', '{TWO}', 'Bo')",
        "INSERT INTO {schema}.people VALUES (3, NULL, NULL, 'Cy'), (4, 'NULL', NULL, 'Di')",
        f"""INSERT INTO {{schema}}.teams VALUES
            (1, 'one', ARRAY[2, 1, 2, NULL, 9], ARRAY['a', NULL, 'NULL'], ARRAY['{ONE}', '{ONE}']::uuid[]),
            (2, 'two', ARRAY[]::int[], NULL, ARRAY[NULL]::uuid[]),
            (3, 'three', NULL, ARRAY['b,"'], ARRAY['{TWO}']::uuid[]),
            (4000000000, 'far', ARRAY[3, 4], ARRAY[]::text[], NULL)""",
        """INSERT INTO {schema}.badges VALUES
            ('x', ARRAY[1, 2, 4000000000], ARRAY['a'], ARRAY[1, 2], 1),
            ('y', ARRAY[2, 2, NULL], ARRAY['b,"', NULL], ARRAY[]::smallint[], 2),
            ('z', NULL, ARRAY[NULL, 'NULL'], ARRAY[3, 1], 3),
            ('w', ARRAY[4], NULL, NULL, 4)""",
    ),
    ("UPDATE {schema}.people SET name = name || '!'",),
    ("UPDATE {schema}.teams SET member_ids = ARRAY[3] WHERE id IN (1, 2)",),
    ("UPDATE {schema}.badges SET holder_ids = ARRAY[3, 1] WHERE n IN (1, 3)",),
    ("UPDATE {schema}.badges SET label = 'only', n = 20 WHERE n = 2", "UPDATE {schema}.badges SET n = 30 WHERE n = 3"),
    ("UPDATE {schema}.badges SET slot = slot || 2::smallint, holder_codes = NULL WHERE n <> 4",),
    (
        "UPDATE {schema}.badges SET holder_ids = (SELECT array_agg(n) FROM generate_series(2, 5000) n) WHERE n = 1",
        """UPDATE {schema}.badges SET holder_codes = (SELECT array_agg(md5(n::text)) || 'a'::text
            FROM generate_series(2, 5000) n) WHERE n = 1""",
    ),
    ("UPDATE {schema}.badges SET label = 'long' WHERE n = 1",),
    (
        "UPDATE {schema}.badges SET holder_ids = holder_ids[2:] WHERE n = 1",
        "UPDATE {schema}.people SET code = 'c2' WHERE id = 1",
    ),
    ("UPDATE {schema}.people SET id = 9 WHERE id = 3", "DELETE FROM {schema}.people WHERE id = 2"),
    ("DELETE FROM {schema}.badges WHERE n IN (1, 4)", "DELETE FROM {schema}.teams WHERE id = 3"),
    ("TRUNCATE {schema}.badges",),
)
DEEP_STEPS = (
    "UPDATE {schema}.badges SET holder_ids = ARRAY[[1, 3], [2, NULL]], slot = ARRAY[[1, 2]] WHERE n = 4",
    "UPDATE {schema}.badges SET label = 'deep' WHERE n = 4",
    "UPDATE {schema}.badges SET holder_ids = ARRAY[[3, 3], [4, 3]] WHERE n = 4",
    "UPDATE {schema}.badges SET holder_ids = ARRAY[3, 3, 4, 3] WHERE n = 4",
)
"""Arrays of two dimensions link to nothing."""


def refreshes_by_arrays(daemon: Daemon, name: str) -> None:
    """Requests refreshes by rows whose links are arrays."""

    def refreshed(**row: object) -> tuple[int, object]:
        status, answer = daemon.refresh(name, table="badges", rows=[row])
        return status, answer.get("refreshed", answer)

    assert refreshed(n=1) == (200, 2), "teams 1 and 2: its arrays are read from PostgreSQL"
    assert refreshed(holder_ids=[], holder_codes=None, slot=[None, 2, 2]) == (200, 1)
    assert refreshed(holder_ids=[3], holder_codes=["a"], slot=[]) == (200, 2), "person 3 in the far team, person 1"
    status, answer = refreshed(holder_ids="{1}", holder_codes=None, slot=[])
    assert status == 400 and "an array is written as a JSON list of its elements" in str(answer)


def test_documents_with_links_by_arrays_equal_sql(system: System) -> None:
    system.execute(*ARRAYS_SETUP)
    system.declare("summaries", TEAMS)
    name = f"{system.prefix}-teams"
    checked = system.run("check", name, expect=1)
    for statement in ARRAYS_INDEXES:
        table, _, column = statement.replace("{schema}", system.schema).removeprefix("CREATE INDEX ON ").split(" ", 2)
        assert f"CREATE INDEX CONCURRENTLY ON {table} USING {column}" in " ".join(checked.split())
    system.execute(*ARRAYS_INDEXES)
    system.run("check", name)
    assert "linked by the elements of an array: any(holder_ids) = id" in system.run("explain", name)
    daemon = system.start(name)
    for step in ARRAYS_STEPS:
        system.execute(*step)
        compare(system, daemon, ARRAYS_EXPECTED, step)
        if step is ARRAYS_STEPS[1]:
            change = json.loads(system.run("trace", name, "1", "--json", "--patience", "0"))["changes"]
            assert {c["key"] for c in change if c["table"].endswith("people")} == {"1", "2", "4"}
            assert {c["key"] for c in change if c["table"].endswith("badges")} == {"1", "2", "3"}
            refreshes_by_arrays(daemon, name)
            for deep in DEEP_STEPS:
                system.execute(deep)
                compare(system, daemon, ARRAYS_EXPECTED, deep)
    assert system.dead_letters(name) == []
