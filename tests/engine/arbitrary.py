"""Hypothesis makes small schemas, and read models over them.

Names tell what they are: tables a, b, …; key columns k, l; links r0, r1, …; a nested object `o`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.engine.schema import VALUES, Column, Reference, Schema, Table, literal
from tests.engine.tree import (
    Aggregate,
    Expression,
    Field,
    Grouped,
    Here,
    Key,
    Level,
    Link,
    Name,
    Order,
    Shown,
    Tree,
)

DEPTH = 4
KEYS = ["integer"] * 4 + ["text", "numeric", "date"]
TYPES = ["integer"] * 4 + ["text", "numeric", "date", "boolean"]
Draw = Callable[[st.SearchStrategy[Any]], Any]


# -- schemas ----------------------------------------------------------------------------------------------


@st.composite
def schemas(draw: Draw) -> Schema:
    tables = [draw(_tables(name)) for name in "abc"[: draw(st.integers(1, 3))]]
    return Schema(tuple(replace(t, references=tuple(_references(draw, t, tables))) for t in tables))


@st.composite
def _tables(draw: Draw, name: str) -> Table:
    key = [Column(k, draw(st.sampled_from(KEYS)), True) for k in "kl"[: draw(st.sampled_from([1, 1, 2]))]]
    others = [
        Column(c, draw(st.sampled_from(TYPES)), draw(st.integers(0, 3)) == 3)
        for c in "pqrs"[: draw(st.integers(1, 4))]
    ]
    made = [Column("g", "integer", generated=f"{c.name} * 2") for c in others if c.type == "integer"]
    if not draw(st.booleans()):
        made = []
    partitioned = draw(st.integers(0, 4)) == 4
    unique = ""
    if not partitioned and others[0].type in KEYS and draw(st.integers(0, 2)) == 2:
        unique = others[0].name
    return Table(name, (*key, *others, *made[:1]), tuple(c.name for c in key), unique, (), partitioned)


def _references(draw: Draw, table: Table, tables: list[Table]) -> Iterator[Reference]:
    """Now and then a column is a foreign key."""
    for column in table.columns:
        fitting = [t for t in tables if len(t.key) == 1 and t.column(t.key[0]).type == column.type]
        if fitting and column.name in "pqrs" and draw(st.integers(0, 4)) == 4:
            there = draw(st.sampled_from(fitting))
            action = draw(st.sampled_from(["CASCADE", "NO ACTION" if column.not_null else "SET NULL"]))
            yield Reference(column.name, there.name, there.key[0], action)


# -- read models ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What one history is played on. Printed, it is the SQL of the tables and the YAML of the read model."""

    schema: Schema
    tree: Tree
    identities: dict[str, str]

    @property
    def declaration(self) -> str:
        text: str = yaml.safe_dump(self.tree.yaml(), sort_keys=False, allow_unicode=True, width=100)
        return text

    @property
    def tables(self) -> list[Table]:
        """Those that are written to: those that the read model uses, the most used ones more."""
        used = [self.tree.table, *(link.table for link in self.tree.links())]
        return sorted((self.schema[name] for name in used), key=lambda table: table.name)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How Hypothesis shows it."""
        tables = "\n".join(f"{sql};" for sql in self.schema.sql(self.identities) if " SET (" not in sql)
        printer.text(f"\n{tables}\n---\n{self.declaration}")


@st.composite
def cases(draw: Draw) -> Case:
    schema = draw(schemas())
    table = draw(st.sampled_from(schema.tables))
    level = draw(_levels(schema, table, DEPTH - 1, hidden=False))
    where = draw(_conditions(_Names(schema, table, level.links))) if draw(st.integers(0, 3)) == 3 else None
    tree = Tree(table.name, level, where)
    return Case(schema, tree, {t.name: _identity(draw, t, tree) for t in schema.tables})


def _identity(draw: Draw, table: Table, tree: Tree) -> str:
    """DEFAULT is enough where rows are found by their key alone."""
    linked = {its for link in tree.links() if link.table == table.name for its, _ in link.on}
    return "DEFAULT" if linked <= set(table.key) and draw(st.booleans()) else "FULL"


@st.composite
def _levels(draw: Draw, schema: Schema, table: Table, depth: int, *, hidden: bool) -> Level:
    """A row's relations and, unless it is hidden, its document."""
    links: dict[Key, Link] = {}
    shown: list[Key] = []
    least = 1 if depth == DEPTH - 1 else 0
    for number in range(draw(st.integers(least, 2)) if depth else 0):
        nested = not hidden and draw(st.integers(0, 3)) == 3
        key: Key = ("o", f"r{number}") if nested else (f"r{number}",)
        unseen = hidden or (not nested and draw(st.integers(0, 3)) == 3)
        links[key] = draw(_links(schema, table, depth - 1, hidden=unseen))
        shown += [] if unseen else [key]
    if hidden:
        return Level(links)
    names = _Names(schema, table, links)
    if depth < DEPTH - 1 and draw(st.integers(0, 5)) == 5:
        shown_only = {key: link for key, link in links.items() if key not in shown}
        return Level(shown_only, {}, draw(_expressions(_Names(schema, table, shown_only))))
    fields: dict[str, Field] = {"id": _name(Name((), table.key[0]), "")}
    fields |= {f"f{n}": draw(_entries(names)) for n in range(draw(st.integers(0, 2)))}
    for key in shown:
        within = fields.setdefault("o", {"i": draw(_expressions(names))}) if len(key) == 2 else fields
        assert isinstance(within, dict)
        within[key[-1]] = Shown(key)
    return Level(links, fields)


@st.composite
def _links(draw: Draw, schema: Schema, table: Table, depth: int, *, hidden: bool) -> Link:
    other = draw(st.sampled_from(schema.tables))
    pairs = [(its.name, ours.name) for its in other.columns for ours in table.columns if _linkable(its, ours)]
    if not pairs:
        other = table
        pairs = [(name, name) for name in table.key]
    down = [pair for pair in pairs if pair[0] not in other.key and pair[1] in table.key]
    up = [pair for pair in pairs if pair[0] in (*other.key, other.unique) and pair[1] not in table.key]
    on = [draw(st.sampled_from(draw(st.sampled_from([down or pairs, down or pairs, up or pairs, pairs]))))]
    if more := [pair for pair in pairs if pair[0] != on[0][0]]:
        on += [draw(st.sampled_from(more))] if draw(st.integers(0, 3)) == 3 else []
    unique = any(set(columns) <= {its for its, _ in on} for columns in (other.key, (other.unique,)))
    kind = "one" if unique and draw(st.integers(0, 3)) else "many"
    level = draw(_levels(schema, other, depth, hidden=hidden))
    names = _Names(schema, other, level.links)
    where = draw(_conditions(names)) if draw(st.integers(0, 4)) == 4 else None
    order: list[Order] = []
    limit = None
    if kind == "many":
        order = draw(st.lists(_orders(names), max_size=2))
        limit = None if hidden else draw(st.none() | st.integers(1, 2))
    return Link(kind, other.name, tuple(on), level, where, tuple(order), limit)


def _linkable(one: Column, other: Column) -> bool:
    numbers = {one.type, other.type} <= {"integer", "numeric"}
    return (one.type == other.type or numbers) and not (one.generated or other.generated)


# -- expressions ------------------------------------------------------------------------------------------


class _Names:
    """What can be named at a row."""

    def __init__(self, schema: Schema, table: Table, links: dict[Key, Link]) -> None:
        self.schema, self.table, self.links = schema, table, links

    def columns(self) -> list[tuple[Name, str]]:
        """With its type: of the row, and of those that `one` relations lead to."""
        found = [(Name((), column.name), column.type) for column in self.table.columns]
        for key, link in self.links.items():
            if link.kind == "one":
                there = self.at(link)
                found += [(Name((key, *n.through), n.column), type) for n, type in there.columns()]
        return found

    def at(self, link: Link) -> _Names:
        return _Names(self.schema, self.schema[link.table], link.level.links)

    def chains(self) -> list[tuple[tuple[Key, ...], _Names]]:
        """Ways to many rows, and what can be named there."""
        found = []
        for key, link in self.links.items():
            there = self.at(link)
            found += [((key, *chain), names) for chain, names in there.chains()]
            if link.kind == "many":
                found.append(((key,), there))
        return found


def _name(name: Name, type: str) -> Expression:
    return Expression(str(name), type, lambda here: here.name(name))


@st.composite
def _expressions(draw: Draw, names: _Names) -> Expression:
    """A value: a column, a calculation, an aggregate."""
    found: Expression = draw(_scalars(names))
    if names.chains() and draw(st.booleans()):
        call = draw(_aggregates(names))
        found = Expression(call.sql, call.type, lambda here: here.aggregate(call))
        if found.type in ("integer", "numeric") and draw(st.booleans()):
            found = _coalesced(found)
    return found


@st.composite
def _scalars(draw: Draw, names: _Names) -> Expression:
    found: Expression = _name(*draw(st.sampled_from(names.columns())))
    others = [_name(*item) for item in names.columns() if item[1] == found.type]
    match found.type if draw(st.integers(0, 2)) == 2 else "":
        case "integer" | "numeric":
            return _sum_of(found, draw(st.sampled_from(others)))
        case "text":
            return _joined(found, draw(st.sampled_from(others)))
        case "boolean":
            found = draw(_conditions(names))
    return found


def _sum_of(one: Expression, other: Expression) -> Expression:
    def of(here: Here) -> Any:
        left, right = one.of(here), other.of(here)
        return None if left is None or right is None else left * 2 + right

    return Expression(f"{one.sql} * 2 + {other.sql}", one.type, of)


def _joined(one: Expression, other: Expression) -> Expression:
    def of(here: Here) -> Any:
        left, right = one.of(here), other.of(here)
        return None if left is None or right is None else f"{left}/{right}"

    return Expression(f"{one.sql} || '/' || {other.sql}", "text", of)


def _coalesced(inner: Expression) -> Expression:
    def of(here: Here) -> Any:
        value = inner.of(here)
        return (0 if value is None else value) + 1

    return Expression(f"coalesce({inner.sql}, 0) + 1", inner.type, of)


@st.composite
def _conditions(draw: Draw, names: _Names) -> Expression:
    name, type = draw(st.sampled_from(names.columns()))
    value = draw(st.sampled_from(VALUES[type]))
    kind = draw(st.sampled_from(["<>", ">=", "is null", "or null"]))

    def of(here: Here) -> Any:
        found = here.name(name)
        if kind == "is null":
            return found is None
        if kind == "or null":
            return found is None or found == value
        return None if found is None else found != value if kind == "<>" else found >= value

    told = {"is null": f"{name} is null", "or null": f"{name} = {literal(value)} or {name} is null"}
    sql = told.get(kind, f"{name} {kind} {literal(value)}")
    return Expression(sql, "boolean", of)


@st.composite
def _orders(draw: Draw, names: _Names) -> Order:
    by, _ = draw(st.sampled_from(names.columns()))
    return Order(by, draw(st.booleans()), draw(st.none() | st.booleans()))


_OF_ANY = ("count", "first", "last", "array_agg")
_OF_TYPE = {
    "integer": ("sum", "min", "max"), "numeric": ("sum", "min", "max"), "date": ("min", "max"),
    "text": ("string_agg", "min", "max"), "boolean": ("bool_and",),
}  # fmt: skip


@st.composite
def _aggregates(draw: Draw, names: _Names) -> Aggregate:
    chain, there = draw(st.sampled_from(names.chains()))
    if draw(st.integers(0, 3)) == 0:
        return Aggregate("count", chain, None, "integer", where=draw(st.none() | _kept(chain, there)))
    inner, type = draw(st.sampled_from(there.columns()))
    name = inner.after(chain)
    function = draw(st.sampled_from((*_OF_ANY, *_OF_TYPE[type])))
    distinct = function in ("count", "sum", "array_agg") and draw(st.integers(0, 2)) == 2
    kept = draw(st.none() | _kept(chain, there))
    listed = function in ("first", "last", "array_agg", "string_agg") and not distinct
    order = draw(st.lists(_orders(there), max_size=1)) if listed else []
    return Aggregate(
        function, chain, _name(name, type),
        {"count": "integer", "array_agg": "array"}.get(function, type), distinct, kept,
        tuple(replace(item, by=item.by.after(chain)) for item in order),
    )  # fmt: skip


@st.composite
def _kept(draw: Draw, chain: tuple[Key, ...], there: _Names) -> Expression:
    """A filter over the rows at the end of the chain."""
    inner, type = draw(st.sampled_from(there.columns()))
    name = inner.after(chain)
    value = draw(st.sampled_from(VALUES[type]))

    def of(here: Here) -> Any:
        found = here.name(name)
        return None if found is None else found == value

    return Expression(f"{name} = {literal(value)}", "boolean", of)


@st.composite
def _entries(draw: Draw, names: _Names) -> Field:
    if names.chains() and draw(st.integers(0, 4)) == 4:
        call = draw(_aggregates(names))
        inner, _ = draw(st.sampled_from(dict(names.chains())[call.chain].columns()))
        return Grouped(call, inner.after(call.chain))
    found: Expression = draw(_expressions(names))
    return found
