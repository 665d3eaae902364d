"""Three tables with arrays of keys, and read models whose links compare their elements.

Few keys make elements without a row, repeated elements and rows in many arrays frequent. `c` has a unique index instead
of a primary key, unless it is the root table.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.engine.arbitrary import Case, Draw
from tests.engine.schema import VALUES, Column, Identity, Schema, Table, literal
from tests.engine.statements import ENDS, SESSIONS, Action, Statement, Transaction, Write
from tests.engine.tree import Aggregate, Expression, Field, Key, Level, Link, Name, Order, Shown, Tree

TABLES = (
    Table("a", (Column("k", "integer", True, key=True), Column("p", "bigint[]"), Column("q", "text")), ("k",)),
    Table("b", (Column("k", "bigint", True, key=True), Column("p", "integer[]"), Column("q", "text")), ("k",)),
    Table(
        "c",
        (
            Column("k", "text", True, key=True),
            Column("p", "text[]"),
            Column("q", "text"),
            Column("s", "integer[]", True),
        ),
        ("k",),
    ),
)
_DEPTH = 3


def array_case(dice: Random) -> Case:
    """Chooses a read model. Its root can be any of the tables."""
    root = dice.choice(TABLES)
    level = _level(dice, root, _DEPTH)
    tree = Tree(root.name, level)
    tables = tuple(replace(table, has_primary_key=table.name != "c" or table is root) for table in TABLES)
    return Case(Schema(tables), tree, {table.name: _identity(dice, table, tree) for table in tables})


def _identity(dice: Random, table: Table, tree: Tree) -> Identity:
    """Chooses a sufficient identity: the key suffices if the links of the table use nothing else."""
    linked = {its for link in tree.links() if link.table == table.name for its, _ in link.pairs}
    key: Identity = "DEFAULT" if table.has_primary_key else table.key
    return dice.choice(["FULL", key]) if linked <= set(table.key) else "FULL"


def _links(table: Table) -> list[tuple[Table, tuple[str, str]]]:
    """Returns the tables that can be linked to a table, each with the pair that links them."""
    found = []
    for other in TABLES:
        for its in other.columns:
            for ours in table.columns:
                array, key = (its, ours) if its.type.endswith("[]") else (ours, its)
                if array.type.endswith("[]") and key.key and _kind(array) == _kind(key):
                    sides = [f"any({c.name})" if c is array else c.name for c in (its, ours)]
                    found.append((other, (sides[0], sides[1])))
    return found


def _kind(column: Column) -> str:
    return "text" if column.type.startswith("text") else "integer"


def _level(dice: Random, table: Table, depth: int) -> Level:
    links: dict[Key, Link] = {}
    fields: dict[str, Field] = {"id": _column("k"), "q": _column("q")}
    if dice.random() < 0.5:
        fields["p"] = _column("p")
    for number in range(dice.randint(1, 2) if depth else 0):
        key = (f"r{number}",)
        other, pair = dice.choice(_links(table))
        links[key] = _link(dice, other, pair, depth)
        fields |= {f"n{number}": _count(key), f"q{number}": _texts(key)}
        if dice.random() < 0.7:
            fields[key[0]] = Shown(key)
        if dice.random() < 0.3 and (found := _through(dice, key, other, depth)):
            links[(f"t{number}",)] = found
            fields[f"t{number}"] = Shown((f"t{number}",))
    shown = {entry.key for entry in fields.values() if isinstance(entry, Shown)}
    hidden = {key: replace(link, level=replace(link.level, fields={}), limit=None) for key, link in links.items()}
    hidden = {key: replace(link, level=Level(_hidden(link.level.links))) for key, link in hidden.items()}
    return Level({key: link if key in shown else hidden[key] for key, link in links.items()}, fields)


def _hidden(links: dict[Key, Link]) -> dict[Key, Link]:
    """Returns relations without documents and limits."""
    return {key: replace(link, limit=None, level=Level(_hidden(link.level.links))) for key, link in links.items()}


def _link(dice: Random, table: Table, pair: tuple[str, str], depth: int, through: tuple[Key, ...] = ()) -> Link:
    where = dice.choice([None, None, Expression("q is not null", "boolean", _has_text)])
    order = dice.choice([(), (), (Order(Name((), "q"), descending=True),)])
    limit = dice.choice([None, None, 1, 2])
    return Link("many", table.name, (pair,), _level(dice, table, depth - 1), where, order, limit, through)


def _through(dice: Random, key: Key, table: Table, depth: int) -> Link | None:
    """Returns a relation that is linked by an array of the rows of another relation. None if no key fits."""
    fitting = [(other, pair) for other, pair in _links(table) if pair[1].startswith("any(")]
    return _link(dice, *dice.choice(fitting), min(depth, 1), (key,)) if fitting else None


def _column(name: str) -> Expression:
    return Expression(name, "", lambda here: here.name(Name((), name)))


def _count(key: Key) -> Expression:
    call = Aggregate("count", (key,), None, "integer")
    return Expression(call.sql, "integer", lambda here: here.aggregate(call))


def _texts(key: Key) -> Expression:
    argument = Expression(f"{key[0]}.q", "text", lambda here: here.name(Name((key,), "q")))
    call = Aggregate("string_agg", (key,), argument, "text")
    return Expression(call.sql, "text", lambda here: here.aggregate(call))


def _has_text(here: Any) -> bool:
    return here.name(Name((), "q")) is not None


def kept_elements(*, shown: bool) -> Case:
    """Returns a read model whose documents also depend on an array apart from the link that it belongs to.

    shown: whether the documents show the array. If not, a second link uses it.
    """
    second = Link("many", "a", (("k", "any(s)"),), Level({}, {}, _column("q")))
    level = Level({}, {"s": _column("s")}) if shown else Level({("t0",): second}, {"t0": Shown(("t0",))})
    link = Link("many", "c", (("any(s)", "k"),), level)
    tables = tuple(replace(table, has_primary_key=table.name != "c") for table in TABLES)
    tree = Tree("a", Level({("r0",): link}, {"r0": Shown(("r0",))}))
    return Case(Schema(tables), tree, {table.name: "FULL" for table in TABLES})


KEPT_ELEMENTS = (
    "INSERT INTO a VALUES (1, NULL, 'one'), (2, NULL, 'two'), (3, NULL, 'three')",
    "INSERT INTO c VALUES ('a', NULL, 'x', '{1,2}')",
    "UPDATE c SET s = '{2,1}'",
    "UPDATE c SET s = '{2,3}'",
    "UPDATE c SET s = '{{2,3}}'",
    "UPDATE c SET s = '{3}', q = 'y'",
    "DELETE FROM c",
)


# -- the application --------------------------------------------------------------------------------------------


def rows(dice: Random) -> list[Statement]:
    """Inserts most keys into every table."""
    return [
        Statement(f"INSERT INTO {table.name} VALUES ({', '.join(_value(dice, c, key) for c in table.columns)})")
        for table in TABLES
        for key in VALUES[table.columns[0].type]
        if dice.random() < 0.8
    ]


def change(dice: Random) -> list[Statement]:
    """Changes arrays, keys and other columns of up to three rows. Rarely truncates a table."""
    if dice.random() < 0.03:
        return [Statement(f"TRUNCATE {dice.choice(TABLES).name}")]
    return [_change(dice) for _ in range(dice.choice([1, 1, 2, 3]))]


def _change(dice: Random) -> Statement:
    table = dice.choice(TABLES)
    key = table.columns[0]
    chosen = f"WHERE k = {_value(dice, key)}"
    kind = dice.choice(["array", "array", "array", "text", "key", "append", "delete", "insert"])
    if kind == "delete":
        return Statement(f"DELETE FROM {table.name} {chosen}")
    if kind == "insert":
        values = ", ".join(_value(dice, column) for column in table.columns)
        return Statement(f"INSERT INTO {table.name} VALUES ({values}) ON CONFLICT DO NOTHING")
    column = dice.choice([c for c in table.columns if c.type.endswith("[]")])
    if kind == "append":
        return Statement(f"UPDATE {table.name} SET {column.name} = {column.name}[1:] || {column.name}[1:1] {chosen}")
    column = {"array": column, "text": table.column("q"), "key": key}[kind]
    return Statement(f"UPDATE {table.name} SET {column.name} = {_value(dice, column)} {chosen}")


def _value(dice: Random, column: Column, key: Any = None) -> str:
    if column.key and key is not None:
        return literal(key)
    found = literal(dice.choice(VALUES[column.type] if column.not_null else (*VALUES[column.type], None)))
    return f"{found}::{column.type}" if column.type.endswith("[]") else found


@st.composite
def array_changes(draw: Draw) -> Action:
    """Changes rows in a transaction of its own, or in one that stays open."""
    dice = draw(st.randoms(use_true_random=False))
    if draw(st.integers(0, 3)) == 3:
        return Write(draw(st.integers(0, SESSIONS - 1)), _change(dice))
    statements = change(dice)
    truncates = any(str(statement).startswith("TRUNCATE") for statement in statements)
    return Transaction(tuple(statements), "COMMIT" if truncates else draw(st.sampled_from(ENDS)))
