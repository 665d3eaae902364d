"""A tree of five rows, read models with `up` over it, and changes of its rows.

Five keys make deep paths, cycles and dangling parents frequent. `arbitrary.py` draws `up` too, but rarely deep ones.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.engine.arbitrary import Case
from tests.engine.schema import VALUES, Column, Identity, Schema, Table, literal
from tests.engine.statements import ENDS, SESSIONS, Action, Statement, Transaction, Write
from tests.engine.tree import Aggregate, Expression, Field, Level, Link, Name, Shown, Tree

Draw = Callable[[st.SearchStrategy[Any]], Any]
PATH = ("path",)
KEYS = VALUES["integer"]
TREE = Table("a", (Column("k", "integer", True, key=True), Column("p", "integer"), Column("q", "text")), ("k",))
LEAVES = Table("b", (Column("k", "integer", True, key=True), Column("p", "integer"), Column("q", "text")), ("k",))


def tree_case(dice: Random) -> Case:
    """Chooses a read model. Its root table is the tree, or another table that links to the tree."""
    table = dice.choice([TREE, TREE, LEAVES])
    hidden = dice.random() < 0.5
    above = Level({}, {} if hidden else {"k": _column("k", "integer"), "q": _column("q", "text")})
    where = dice.choice([None, None, Expression("q is not null", "boolean", _has_text)])
    path = Link(
        "up",
        TREE.name,
        (("k", "p"),),
        above,
        where,
        limit=dice.randint(2, 5),
        step=() if table is TREE else (("k", "p"),),
        farthest_first=dice.random() < 0.5,
    )
    fields: dict[str, Field] = {"id": _column("k", "integer"), "joined": _aggregate("string_agg", "text")}
    fields |= {"count": _aggregate("count", "integer"), "top": _aggregate("first", "text")}
    if not hidden:
        fields["path"] = Shown(PATH)
    identities: dict[str, Identity] = {TREE.name: dice.choice(["FULL", "DEFAULT"]), LEAVES.name: "FULL"}
    return Case(Schema((TREE, LEAVES)), Tree(table.name, Level({PATH: path}, fields)), identities)


def five_nodes(dice: Random) -> list[Statement]:
    """Inserts all nodes, most of them in one long path, and some leaves."""
    parents = [None, *(dice.choice([key - 1] * 3 + [None, *KEYS]) for key in KEYS[1:])]
    nodes = ", ".join(f"({key}, {literal(parent)}, 'n{key}')" for key, parent in zip(KEYS, parents, strict=True))
    leaves = ", ".join(f"({key}, {key}, 'l{key}')" for key in KEYS)
    return [Statement(f"INSERT INTO a VALUES {nodes}"), Statement(f"INSERT INTO b VALUES {leaves}")]


def change(dice: Random) -> list[Statement]:
    """Moves, renames, deletes or inserts up to three nodes. Rarely truncates the tree."""
    if dice.random() < 0.03:
        return [Statement("TRUNCATE a")]
    return [_change(dice) for _ in range(dice.choice([1, 1, 2, 3]))]


def _change(dice: Random) -> Statement:
    key, parent = dice.choice(KEYS), literal(dice.choice([None, *KEYS]))
    move = f"UPDATE a SET p = {parent} WHERE k = {key}"
    rename = f"UPDATE a SET q = 'x{dice.randint(0, 9)}' WHERE k = {key}"
    delete = f"DELETE FROM a WHERE k = {key}"
    insert = f"INSERT INTO a VALUES ({key}, {parent}, 'new') ON CONFLICT DO NOTHING"
    link = f"UPDATE b SET p = {parent} WHERE k = {key}"
    return Statement(dice.choice([move, move, rename, delete, insert, insert, link]))


@st.composite
def moves(draw: Draw) -> Action:
    """Changes nodes in a transaction of its own, or in one that stays open."""
    dice = draw(st.randoms(use_true_random=False))
    if draw(st.integers(0, 3)) == 3:
        return Write(draw(st.integers(0, SESSIONS - 1)), _change(dice))
    statements = change(dice)
    truncates = any(str(statement).startswith("TRUNCATE") for statement in statements)
    return Transaction(tuple(statements), "COMMIT" if truncates else draw(st.sampled_from(ENDS)))


def _column(name: str, type: str) -> Expression:
    return Expression(name, type, lambda here: here.name(Name((), name)))


def _aggregate(function: str, type: str) -> Expression:
    argument = Expression("path.q", "text", lambda here: here.name(Name((PATH,), "q")))
    call = Aggregate(function, (PATH,), argument, type)
    return Expression(call.sql, type, lambda here: here.aggregate(call))


def _has_text(here: Any) -> bool:
    return here.name(Name((), "q")) is not None
