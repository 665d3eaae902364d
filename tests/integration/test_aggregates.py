"""Compares aggregates of every kind with expected values on a few rows."""

import json
from typing import Any

from syncer.declaration.compile import compile
from syncer.declaration.model import parse, tables
from syncer.postgres.catalog import load
from tests.harness import Database

AGGREGATES = {
    "sum(items.n)": 4.20,
    "sum(distinct items.n)": 3.10,
    "avg(distinct items.a)": 1.5,
    "count(distinct items.n)": 2,
    "array(distinct items.n)": [1.10, 2.00],
    "min(items.n)": 1.1,
    "sum(items.f)": 0.6,
    "string_agg(items.t, ', ')": "c, a, b",
    "string_agg(distinct items.t, '' )": "abc",
    "first(items.arr)": [3],
    "last(items.arr)": None,
    "array(items.arr)": [[3], [1, 2], None],
    "array(items.a order by items.a desc)": [2, 1, 1],
    "first(items.t order by items.a desc)": "a",
    "array((items.a, items.t))": [{"f1": 1, "f2": "c"}, {"f1": 2, "f2": "a"}, {"f1": 1, "f2": "b"}],
    "array('x') filter (where items.id > 0)": ["x", "x", "x"],
    "bool_or(items.a = 2)": True,
    "every(items.a = 2)": False,
    "max(items.j->>'k')": "v",
    "array(items.j)": [{"k": "v"}, None, None],
    "array(items.md)": ["ok", None, None],
    "count(items) filter (where items.a > n)": 1,
    "sum(items.a * n)": 4.0,
    "count(items.peer)": 2,
    "max(items.peer.t)": "b",
    "count(items.peer.items)": 6,
    "array(items.peer.items.t)": ["c", "a", "b", "c", "a", "b"],
    "count(items) > 2 and n = 1": True,
    "case when count(items) > 2 then first(items.t) else 'few' end": "c",
    "jsonb_build_object('n', count(items))": {"n": 3},
    "count(nothing)": 0,
    "sum(nothing.a)": None,
    "array(nothing.a)": [],
    "array(distinct nothing.n)": [],
    "first(nothing.t)": None,
}


def test_aggregates(database: Database) -> None:
    database.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TABLE root (id int PRIMARY KEY, n numeric)",
        """CREATE TABLE item (id int PRIMARY KEY, root_id int, peer_id int, place int, n numeric, a int,
               f float8, t text, arr int[], j json, md mood)""",
        "INSERT INTO root VALUES (1, 1.0), (2, NULL)",
        """INSERT INTO item VALUES
               (1, 1, 2, 2, 1.1, 2, 0.1, 'a', '{1,2}', NULL, NULL),
               (2, 1, NULL, NULL, 2.00, 1, 0.3, 'b', NULL, NULL, NULL),
               (3, 1, 1, 1, 1.10, 1, 0.2, 'c', '{3}', '{"k": "v"}', 'ok')""",
    )
    fields = "".join(f"  f{i}: {json.dumps(text)}\n" for i, text in enumerate(AGGREGATES))
    text = f"""\
name: m
root: {{table: root}}
relations:
  nothing: {{many: item, on: {{root_id: id}}, where: id < 0}}
  items:
    many: item
    on: {{root_id: id}}
    order_by: place
    relations:
      peer:
        one: item
        on: {{id: peer_id}}
        relations: {{items: {{many: item, on: {{root_id: root_id}}, order_by: place}}}}
document:
{fields}  groups: {{value: "coalesce(sum(items.n), 0) + n", group_by: items.md}}
  texts: {{value: first(items.t), group_by: items.a % 2 = 0}}
sink: {{memory: {{}}}}
"""
    model = parse(text, "m.yaml")
    with database.connect() as conn:
        compiled = compile(model, load(conn, tables(model)))
        conn.execute("SET search_path = pg_catalog")
        found, other = (json.loads(r[2]) for r in conn.execute(compiled.render.encode(), [["1", "2"]]).fetchall())
    actual: dict[str, Any] = {text: found[f"f{i}"] for i, text in enumerate(AGGREGATES)}
    actual["sum(items.f)"] = round(actual["sum(items.f)"], 9)
    assert actual == AGGREGATES | {
        "array(items.peer.items.t)": ["c", "a", "b"] * 2,
        "count(items.peer.items)": 6,
    }
    assert found["groups"] == {"ok": 2.10}
    assert found["texts"] == {"false": "c", "true": "a"}
    assert other["groups"] == {} and other["f0"] is None


def test_groups_use_the_value_for_any_column_names(database: Database) -> None:
    """The tables have columns with the names that the generated SQL uses internally."""
    database.execute(
        "CREATE TABLE root (k int PRIMARY KEY)",
        "CREATE TABLE item (k int PRIMARY KEY, v int, n int, doc int, root_k int)",
        "INSERT INTO root VALUES (1)",
        "INSERT INTO item VALUES (1, 5, 1, 1, 1), (2, 5, 1, 1, 1), (3, 6, 1, 1, 1)",
    )
    model = parse(
        """
name: groups
root: {table: root}
document:
  by: {value: count(items), group_by: items.v}
  deep: {value: count(items.same), group_by: items.same.n}
  items:
    many: item
    on: {root_k: k}
    relations: {same: {many: item, on: {v: v}}}
    value: k
sink: {memory: {}}
""",
        "m.yaml",
    )
    with database.connect() as conn:
        rows = conn.execute(compile(model, load(conn, tables(model))).render.encode(), [["1"]]).fetchall()
    [(_, _, text)] = rows
    assert json.loads(text) == {"by": {"5": 2, "6": 1}, "deep": {"1": 5}, "items": [1, 2, 3]}
