"""Hypothesis strategies for small schemas, and for read models over them.

A name shows its kind: tables are a, b, …; key columns k, l; other columns p, q, …; relations r0, r1, …; the nested
object is `o`. Some schemas have odd names (`ODD`), which need quotes, or could be mistaken for other SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.engine.schema import VALUES, Column, Identity, Reference, Schema, Table, literal, word
from tests.engine.tree import (
    TEXT,
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
RARE = ["bigint", "varchar", "character(3)", "timestamptz", "uuid", "bytea", "mood"]
KEYS = ["integer"] * 6 + ["text", "text", "numeric", "numeric", "date", "rare"]
TYPES = ["integer"] * 6 + ["text", "text", "numeric", "numeric", "date", "boolean", "rare"]
ODD = {
    "a": "A b",
    "b": "select",
    "c": "c%s",
    "k": "k%s",
    "l": 'L "x"',
    "p": "select",
    "q": "q.é",
    "r": "a0",
    "s": "v",
    "g": "g%",
    "r0": "r 0",
    "r1": "R1",
    "r2": 'r2"',
}
ALIKE = ({"integer", "bigint", "numeric"}, {"text", "varchar"})
"""Types that PostgreSQL compares without a cast."""
TEXTS = ("text", "varchar", "character(3)")
CASTABLE = (*TEXTS, "integer", "bigint", "uuid", "mood")
"""Types that a link can compare as texts."""
Draw = Callable[[st.SearchStrategy[Any]], Any]


# -- schemas ----------------------------------------------------------------------------------------------


@st.composite
def schemas(draw: Draw) -> Schema:
    odd = draw(st.integers(0, 3)) == 3
    tables = [draw(_tables(letter, odd=odd)) for letter in "abc"[: draw(st.sampled_from([1, 2, 2, 3, 3]))]]
    return Schema(tuple(replace(t, references=tuple(_references(draw, t, tables))) for t in tables), odd)


def _named(name: str, odd: bool) -> str:
    return ODD[name] if odd else name


@st.composite
def _types(draw: Draw, found: list[str]) -> str:
    type: str = draw(st.sampled_from(found))
    return draw(st.sampled_from(RARE)) if type == "rare" else type


@st.composite
def _tables(draw: Draw, letter: str, *, odd: bool) -> Table:
    named = partial(_named, odd=odd)
    key = [Column(named(k), draw(_types(KEYS)), True, key=True) for k in "kl"[: draw(st.sampled_from([1, 1, 2]))]]
    others = [
        Column(named(c), draw(_types(TYPES)), draw(st.integers(0, 2)) == 2) for c in "pqrs"[: draw(st.integers(1, 4))]
    ]
    whole = [word(c.name) for c in others if c.type == "integer"]
    made = [Column(named("g"), "integer", generated=f"{name} * 2") for name in whole]
    if not draw(st.booleans()):
        made = []
    partitioned = draw(st.integers(0, 4)) == 4
    unique = ""
    if not partitioned and others[0].type not in ("boolean", "mood") and draw(st.integers(0, 2)) == 2:
        unique = others[0].name
    columns = (*key, *others, *made[:1])
    had = draw(st.integers(0, 4)) == 4
    return Table(named(letter), columns, tuple(c.name for c in key), unique, (), partitioned, had)


def _references(draw: Draw, table: Table, tables: list[Table]) -> Iterator[Reference]:
    """Yields a foreign key for some of the columns."""
    for column in table.columns:
        fitting = [t for t in tables if len(t.key) == 1 and t.column(t.key[0]).type == column.type]
        if fitting and not (column.key or column.generated) and draw(st.integers(0, 4)) == 4:
            there = draw(st.sampled_from(fitting))
            action = draw(st.sampled_from(["CASCADE", "NO ACTION" if column.not_null else "SET NULL"]))
            yield Reference(column.name, there.name, there.key[0], action)


# -- read models ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """The tables and the read model of one history. It prints as SQL and YAML."""

    schema: Schema
    tree: Tree
    identities: dict[str, Identity]

    def sql(self) -> list[str]:
        return list(self.schema.sql(self.identities))

    @property
    def declaration(self) -> str:
        text: str = yaml.safe_dump(self.tree.yaml(), sort_keys=False, allow_unicode=True, width=100)
        return text

    @property
    def tables(self) -> list[Table]:
        """The tables that the application writes to, once for each use in the read model."""
        used = [self.tree.table, *(link.table for link in self.tree.links())]
        return sorted((self.schema[name] for name in used), key=lambda table: table.name)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        tables = "\n".join(f"{sql};" for sql in self.schema.sql(self.identities) if " SET (" not in sql)
        printer.text(f"\n{tables}\n---\n{self.declaration}")


@st.composite
def cases(draw: Draw) -> Case:
    schema = draw(schemas())
    table = draw(st.sampled_from(schema.tables))
    level = draw(_levels(schema, table, DEPTH - 1, hidden=False))
    columns = _Names(schema, table, level.links).columns()
    where = draw(_conditions(columns)) if draw(st.integers(0, 2)) == 2 else None
    tree = Tree(table.name, level, where)
    tables = tuple(replace(t, has_primary_key=_has_primary_key(draw, t, table)) for t in schema.tables)
    schema = replace(schema, tables=tables)
    return Case(schema, tree, {t.name: _identity(draw, t, tree) for t in schema.tables})


def _has_primary_key(draw: Draw, table: Table, root: Table) -> bool:
    """Draws whether a table has a primary key. Another unique index would compete with that of its key."""
    return table.name == root.name or bool(table.unique) or draw(st.integers(0, 3)) < 3


FEED = Schema(
    (
        Table("a", (Column("k", "date", True, key=True),), ("k",)),
        Table("b", (Column("k", "integer", True, key=True), Column("p", "date"), Column("q", "mood")), ("k",)),
        Table("c", (Column("k", "integer", True, key=True), Column("p", "mood"), Column("q", "integer")), ("k",)),
    )
)
"""Users, follows and posts. `b.p` is the follower, `b.q` the followee, and `c.p` the author.

The linked columns have types with few values, so rows match often, and several follows lead to the same posts.
"""


def feed(order: tuple[Order, ...], where: Expression | None, limit: int) -> Case:
    """Returns a read model with a feed for each user."""
    id = _name(Name((), "k"), "")
    follows = Link("many", "b", (("p", "k"),), Level({}))
    posts = Link("many", "c", (("p", "q"),), Level({}, {"id": id}), where, order, limit, (("r0",),))
    tree = Tree("a", Level({("r0",): follows, ("r1",): posts}, {"id": id, "r1": Shown(("r1",))}))
    return Case(FEED, tree, dict.fromkeys("abc", "FULL"))


@st.composite
def feeds(draw: Draw) -> Case:
    posts = _Names(FEED, FEED["c"], {})
    return feed(tuple(draw(st.lists(_orders(posts), max_size=1))), _filter(draw, posts), draw(st.integers(1, 2)))


@st.composite
def cases_of_groups(draw: Draw) -> Case:
    """Draws a read model whose documents have a list of groups."""
    schema = draw(schemas())
    tables = st.tuples(st.sampled_from(schema.tables), st.sampled_from(schema.tables))
    pairs = [
        (table, other, _sides(its, ours))
        for table in schema.tables
        for other in schema.tables
        for its in other.columns
        for ours in table.columns
        if _linkable(its, ours) and its.name not in other.key and ours.name in table.key
    ]
    table, other = draw(tables)
    on = (table.key[0], table.key[0])
    if pairs:
        table, other, on = draw(st.sampled_from(pairs))
    else:
        other = table
    link = draw(_grouped_links(schema, other, (on,), 2))
    tree = Tree(table.name, Level({("r0",): link}, {"r0": Shown(("r0",))}))
    return Case(schema, tree, {t.name: _identity(draw, t, tree) for t in schema.tables})


def _identity(draw: Draw, table: Table, tree: Tree) -> Identity:
    """Draws a sufficient replica identity.

    DEFAULT is sufficient if links use the key only. An index identity needs columns that are NOT NULL.
    """
    linked = {its for link in tree.links() if link.table == table.name for its, _ in link.pairs}
    needed = [c for c in table.columns if c.key or c.name in linked]
    fitting: list[Identity] = ["FULL"]
    if linked <= set(table.key) and table.has_primary_key:
        fitting.append("DEFAULT")
    if all(column.not_null for column in needed):
        fitting.append(tuple(column.name for column in needed))
    found: Identity = draw(st.sampled_from(fitting))
    return found


@st.composite
def _levels(draw: Draw, schema: Schema, table: Table, depth: int, *, hidden: bool) -> Level:
    """Draws the relations of a row and, unless it is hidden, its document."""
    links: dict[Key, Link] = {}
    shown: list[Key] = []
    least = 1 if depth == DEPTH - 1 else 0
    for number in range(draw(st.integers(least, 2)) if depth else 0):
        nested = not hidden and draw(st.integers(0, 3)) == 3
        relation = _named(f"r{number}", schema.odd)
        key: Key = ("o", relation) if nested else (relation,)
        unseen = hidden or (not nested and draw(st.integers(0, 3)) == 3)
        links[key] = draw(_links(schema, table, depth - 1, hidden=unseen))
        shown += [] if unseen else [key]
    if depth and links and draw(st.integers(0, 2)) == 2:
        key = (_named("r2", schema.odd),)
        unseen = hidden or draw(st.integers(0, 3)) == 3
        if found := draw(_through(schema, _Names(schema, table, links), depth - 1, hidden=unseen)):
            links[key] = found
            shown += [] if unseen else [key]
    if hidden:
        return Level(links)
    names = _Names(schema, table, links)
    if depth < DEPTH - 1 and draw(st.integers(0, 5)) == 5:
        shown_only = {k: link for k, link in links.items() if not {k, *link.through[:1]} & set(shown)}
        return Level(shown_only, {}, draw(_expressions(_Names(schema, table, shown_only))))
    fields: dict[str, Field] = {"id": _name(Name((), table.key[0]), "")}
    field = 'f"{}.é' if schema.odd else "f{}"
    fields |= {field.format(n): draw(_entries(names)) for n in range(draw(st.integers(0, 2)))}
    for key in shown:
        target = fields.setdefault("o", {"i": draw(_expressions(names))}) if len(key) == 2 else fields
        assert isinstance(target, dict)
        target[key[-1]] = Shown(key)
    return Level(links, fields)


@st.composite
def _through(draw: Draw, schema: Schema, names: _Names, depth: int, *, hidden: bool) -> Link | None:
    """Draws a relation that is linked through others of the same row. None if no column fits."""
    path, end = draw(st.sampled_from(names.paths()))
    other = draw(st.sampled_from(schema.tables))
    pairs = [(its.name, ours.name) for its in other.columns for ours in end.table.columns if _linkable(its, ours)]
    if not pairs:
        return None
    chosen = dict(draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=2)))
    on = tuple(_sides(other.column(its), end.table.column(ours)) for its, ours in chosen.items())
    found: Link = draw(_many(schema, other, on, depth, hidden=hidden))
    return replace(found, through=path)


@st.composite
def _links(draw: Draw, schema: Schema, table: Table, depth: int, *, hidden: bool) -> Link:
    other = draw(st.sampled_from(schema.tables))
    if (climb := _climbs(draw, other, table)) and draw(st.integers(0, 3)) == 3:
        level = draw(_levels(schema, other, depth, hidden=hidden))
        columns = _Names(schema, other, level.links).columns()
        where = draw(_conditions(columns)) if draw(st.integers(0, 4)) == 4 else None
        limit, farthest = draw(st.integers(1, 4)), draw(st.booleans())
        return Link("up", other.name, climb[0], level, where, limit=limit, step=climb[1], farthest_first=farthest)
    pairs = [(its.name, ours.name) for its in other.columns for ours in table.columns if _linkable(its, ours)]
    if not pairs:
        other = table
        pairs = [(name, name) for name in table.key]
    down = [pair for pair in pairs if pair[0] not in other.key and pair[1] in table.key]
    up = [pair for pair in pairs if pair[0] in (*other.key, other.unique) and pair[1] not in table.key]
    cast = [pair for pair in pairs if _compares_texts(other.column(pair[0]), table.column(pair[1]))]
    kinds = [down or pairs, down or pairs, up or pairs, pairs, cast or pairs]
    on = [draw(st.sampled_from(draw(st.sampled_from(kinds))))]
    if more := [pair for pair in pairs if pair[0] != on[0][0]]:
        on += [draw(st.sampled_from(more))] if draw(st.integers(0, 3)) == 3 else []
    unique = any(set(columns) <= {its for its, _ in on} for columns in (other.key, (other.unique,)))
    sides = tuple(_sides(other.column(its), table.column(ours)) for its, ours in on)
    when = _filter(draw, _Names(schema, table, {}))
    if not (unique and draw(st.integers(0, 3))):
        found: Link = draw(_many(schema, other, sides, depth, hidden=hidden))
        return replace(found, when=when)
    level = draw(_levels(schema, other, depth, hidden=hidden))
    return Link("one", other.name, sides, level, _filter(draw, _Names(schema, other, level.links)), when=when)


def _filter(draw: Draw, names: _Names) -> Expression | None:
    return draw(_conditions(names.columns())) if draw(st.integers(0, 4)) == 4 else None


@st.composite
def _many(
    draw: Draw, schema: Schema, other: Table, on: tuple[tuple[str, str], ...], depth: int, *, hidden: bool
) -> Link:
    if not hidden and draw(st.integers(0, 3)) == 3:
        grouped: Link = draw(_grouped_links(schema, other, on, depth))
        return grouped
    level = draw(_levels(schema, other, depth, hidden=hidden))
    names = _Names(schema, other, level.links)
    where = _filter(draw, names)
    order = draw(st.lists(_orders(names), max_size=2))
    limit = None if hidden else draw(st.none() | st.integers(1, 2))
    return Link("many", other.name, on, level, where, tuple(order), limit)


Pairs = tuple[tuple[str, str], ...]


def _climbs(draw: Draw, tree: Table, outer: Table) -> tuple[Pairs, Pairs] | None:
    """Draws the links `on` and `step` of ancestors in a tree. None if no columns fit."""
    keys = [tree.key, *([(tree.unique,)] if tree.unique else [])]
    key = [tree.column(name) for name in draw(st.sampled_from(keys))]
    below = [[c.name for c in tree.columns if _climbable(k, c) and c.name not in (k.name, *tree.key)] for k in key]
    ours = [[c.name for c in outer.columns if _climbable(k, c)] for k in key]
    if not all(below) or not all(ours):
        return None
    step = tuple((k.name, draw(st.sampled_from(names))) for k, names in zip(key, below, strict=True))
    if tree.name == outer.name and draw(st.booleans()):
        return step, ()
    on = tuple((k.name, draw(st.sampled_from(names))) for k, names in zip(key, ours, strict=True))
    return on, () if tree.name == outer.name and on == step else step


def _climbable(one: Column, other: Column) -> bool:
    return _alike(one, other) and not other.generated


@st.composite
def _grouped_links(draw: Draw, schema: Schema, table: Table, on: tuple[tuple[str, str], ...], depth: int) -> Link:
    """Draws a list with one element for each group of rows."""
    level = draw(_levels(schema, table, depth, hidden=True))
    names = _Names(schema, table, level.links)
    where = draw(_conditions(names.columns())) if draw(st.integers(0, 2)) == 2 else None
    columns = [Expression(str(name), type, _name(name, type).of) for name, type in names.columns()]
    groups = draw(st.lists(st.sampled_from(columns) | _scalars(names.columns()), min_size=1, max_size=2))
    shared = [_name(*item) for item in _shared(names, {group.sql for group in groups})]

    def entry() -> Expression:
        match draw(st.integers(0, 3)):
            case 0 | 1:
                call = draw(_aggregates_of((), names, names))
                return Expression(call.sql, call.type, lambda here: here.aggregate(call))
            case 2 if shared:
                column: Expression = draw(st.sampled_from(shared))
                return column
        found: Expression = draw(st.sampled_from(groups))
        found = replace(found, sql=f"({found.sql})")
        if found.type in ("integer", "bigint", "numeric") and draw(st.booleans()):
            found = _coalesced(found)
        return found

    def order() -> Order:
        found = entry()
        while found.type == "array":
            found = groups[0]
        return Order(Name((), ""), draw(st.booleans()), draw(st.none() | st.booleans()), of_group=found)

    orders = tuple(order() for _ in range(draw(st.integers(0, 2))))
    limit = draw(st.none() | st.integers(1, 2))
    if draw(st.integers(0, 4)) == 4:
        return Link("many", table.name, on, Level(level.links, {}, entry()), where, orders, limit, groups=tuple(groups))
    fields: dict[str, Field] = {f"f{n}": entry() for n in range(draw(st.integers(1, 3)))}
    links = dict(level.links)
    for key, link in level.links.items():
        if _is_shared(key, link, {group.sql for group in groups}) and draw(st.booleans()):
            shown = draw(_expressions(names.at(link)))
            links[key] = replace(link, level=Level(link.level.links, {"s": shown}))
            fields[key[-1]] = Shown(key)
    level = Level(links, {**fields, "o": {"i": entry()}} if draw(st.integers(0, 3)) == 3 else fields)
    return Link("many", table.name, on, level, where, orders, limit, groups=tuple(groups))


def _shared(names: _Names, groups: set[str]) -> Columns:
    """Returns the columns of `one` relations that the rows of a group share. groups: the group expressions as SQL."""
    return [
        (Name((key, *name.through), name.column), type)
        for key, link in names.links.items()
        if _is_shared(key, link, groups)
        for name, type in names.at(link).columns()
    ]


def _is_shared(key: Key, link: Link, groups: set[str]) -> bool:
    ours = {str(Name((), ours)) for _, ours in link.pairs}
    theirs = {str(Name((key,), its)) for its, _ in link.pairs if not any(link.compares_texts)}
    return link.kind == "one" and not link.when and (ours <= groups or (bool(theirs) and theirs <= groups))


def _linkable(one: Column, other: Column) -> bool:
    return (_alike(one, other) or _compares_texts(one, other)) and not (one.generated or other.generated)


def _alike(one: Column, other: Column) -> bool:
    return one.type == other.type or any({one.type, other.type} <= types for types in ALIKE)


def _compares_texts(one: Column, other: Column) -> bool:
    pair = {one.type, other.type}
    return not _alike(one, other) and pair <= set(CASTABLE) and bool(pair & set(TEXTS))


def _sides(its: Column, ours: Column) -> tuple[str, str]:
    """Returns the two sides of a link, with a cast of each that is not a text if it compares texts."""
    if not _compares_texts(its, ours):
        return its.name, ours.name
    one, other = (c.name if c.type in ("text", "varchar") else f"{c.name}{TEXT}" for c in (its, ours))
    return one, other


# -- expressions ------------------------------------------------------------------------------------------


class _Names:
    """The columns and relations that an expression at a row can name."""

    def __init__(self, schema: Schema, table: Table, links: dict[Key, Link]) -> None:
        self.schema, self.table, self.links = schema, table, links

    def columns(self) -> list[tuple[Name, str]]:
        """Returns the columns of the row and of the rows that `one` relations lead to, with their types."""
        found = [(Name((), column.name), column.type) for column in self.table.columns]
        for key, link in self.links.items():
            if link.kind == "one":
                there = self.at(link)
                found += [(Name((key, *n.through), n.column), type) for n, type in there.columns()]
        return found

    def at(self, link: Link) -> _Names:
        return _Names(self.schema, self.schema[link.table], link.level.links)

    def paths(self) -> list[tuple[tuple[Key, ...], _Names]]:
        """Returns the paths to related rows of any kind, and the names at their ends."""
        found = []
        for key, link in self.links.items():
            there = self.at(link)
            found += [((key,), there), *(((key, *path), names) for path, names in there.paths())]
        return found

    def chains(self) -> list[tuple[tuple[Key, ...], _Names]]:
        """Returns the paths to many rows, and the names at their ends."""
        found = []
        for key, link in self.links.items():
            there = self.at(link)
            found += [((key, *chain), names) for chain, names in there.chains()]
            if link.kind != "one":
                found.append(((key,), there))
        return found


def _name(name: Name, type: str) -> Expression:
    return Expression(str(name), type, lambda here: here.name(name))


Columns = list[tuple[Name, str]]
"""Names of columns with their types."""


@st.composite
def _expressions(draw: Draw, names: _Names) -> Expression:
    """Draws a value: a column, a calculation or an aggregate."""
    found: Expression = draw(_scalars(names.columns()))
    if names.chains() and draw(st.booleans()):
        call = draw(_aggregates(names))
        found = Expression(call.sql, call.type, lambda here: here.aggregate(call))
        if found.type in ("integer", "bigint", "numeric") and draw(st.booleans()):
            found = _coalesced(found)
    return found


@st.composite
def _scalars(draw: Draw, columns: Columns, others: Columns | None = None) -> Expression:
    """Draws one of the columns, or a calculation with it and perhaps with one of `others`."""
    found: Expression = _name(*draw(st.sampled_from(columns)))
    same = [_name(*item) for item in [*columns, *(others or [])] if item[1] == found.type]
    match found.type if draw(st.integers(0, 2)) == 2 else "":
        case "integer" | "bigint" | "numeric":
            return _sum_of(found, draw(st.sampled_from(same)))
        case "text":
            return _joined(found, draw(st.sampled_from(same)))
        case "boolean":
            found = draw(_conditions(columns))
    return found if draw(st.integers(0, 5)) else draw(_cases(found, columns))


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
def _cases(draw: Draw, inner: Expression, columns: Columns) -> Expression:
    """Draws a CASE that is NULL unless a condition is true."""
    condition = draw(_conditions(columns))

    def of(here: Here) -> Any:
        return inner.of(here) if condition.of(here) is True else None

    return Expression(f"case when {condition.sql} then {inner.sql} end", inner.type, of)


@st.composite
def _conditions(draw: Draw, columns: Columns) -> Expression:
    found = draw(_comparisons(columns))
    match draw(st.integers(0, 11)):
        case 9:
            return _negated(found)
        case 10 | 11 as dice:
            return _both(found, draw(_comparisons(columns)), "or" if dice == 11 else "and")
    assert isinstance(found, Expression)
    return found


def _negated(inner: Expression) -> Expression:
    def of(here: Here) -> Any:
        found = inner.of(here)
        return None if found is None else not found

    return Expression(f"not ({inner.sql})", "boolean", of)


def _both(one: Expression, other: Expression, how: str) -> Expression:
    """Combines two conditions in three-valued logic: false decides an `and`, true an `or`. Otherwise NULL decides."""

    def of(here: Here) -> Any:
        found = [one.of(here), other.of(here)]
        if (how == "or") in found:
            return how == "or"
        return None if None in found else how == "and"

    return Expression(f"({one.sql}) {how} ({other.sql})", "boolean", of)


@st.composite
def _comparisons(draw: Draw, columns: Columns) -> Expression:
    """Draws a comparison of a column with constants or with another column."""
    name, type = draw(st.sampled_from(columns))
    others = [other for other, its in columns if its == type and other != name]
    kinds = ["<>", ">=", "=", "in", "is null", "or null", *(["<", "is distinct from"] if others else [])]
    kind = draw(st.sampled_from(kinds))
    other = draw(st.sampled_from(others)) if kind in ("<", "is distinct from") else None
    some = draw(st.lists(st.sampled_from(VALUES[type]), min_size=2, max_size=2)) if kind == "in" else []
    value = draw(st.sampled_from(VALUES[type]))

    def of(here: Here) -> Any:
        found = here.name(name)
        than = here.name(other) if other else value
        match kind:
            case "is null":
                return found is None
            case "or null":
                return found is None or found == value
            case "is distinct from":
                return found != than
        if found is None or than is None:
            return None
        return {"<>": found != than, ">=": found >= than, "=": found == than, "<": found < than}.get(
            kind, found in some
        )

    special = {
        "is null": f"{name} is null",
        "or null": f"{name} = {literal(value)} or {name} is null",
        "in": f"{name} in ({', '.join(map(literal, some))})",
    }
    return Expression(special.get(kind, f"{name} {kind} {other or literal(value)}"), "boolean", of)


@st.composite
def _orders(draw: Draw, names: _Names) -> Order:
    by, _ = draw(st.sampled_from(names.columns()))
    is_null = draw(st.integers(0, 5)) == 5
    return Order(by, draw(st.booleans()), draw(st.none() | st.booleans()), is_null)


_OF_ANY = ("count", "first", "last", "array_agg", "array")
_LISTS = ("first", "last", "array_agg", "array", "string_agg")
_NUMBERS = ("sum", "sum", "avg", "min", "max")
_OF_TYPE = {
    "integer": _NUMBERS,
    "bigint": _NUMBERS,
    "numeric": _NUMBERS,
    "text": ("string_agg", "min", "max"),
    "boolean": ("bool_and", "bool_or", "every"),
    "uuid": (),
    "bytea": (),
}


@st.composite
def _aggregates(draw: Draw, names: _Names) -> Aggregate:
    """Draws an aggregate of the rows at the end of a chain of relations."""
    chain, there = draw(st.sampled_from(names.chains()))
    found: Aggregate = draw(_aggregates_of(chain, there, names))
    return found


@st.composite
def _aggregates_of(draw: Draw, chain: tuple[Key, ...], there: _Names, names: _Names) -> Aggregate:
    """Draws an aggregate of the rows `there`. Its argument may combine their columns with those of the outer row."""
    columns = [(name.after(chain), type) for name, type in there.columns()]
    kept = draw(_conditions(columns)) if draw(st.integers(0, 2)) == 2 else None
    if draw(st.integers(0, 3)) == 0:
        return Aggregate("count", chain, None, "integer", where=kept)
    inner = draw(_scalars(columns, names.columns() if chain else []))
    function = draw(st.sampled_from((*_OF_ANY, *_OF_TYPE.get(inner.type, ("min", "max")) * 2)))
    distinct = function in ("count", "sum", "avg", "array_agg", "array", "string_agg") and draw(st.integers(0, 2)) == 2
    order = draw(st.lists(_orders(there), max_size=2)) if function in _LISTS and not distinct else []
    result = {"count": "integer", "avg": "numeric", "array_agg": "array", "array": "array"}
    return Aggregate(
        function,
        chain,
        inner,
        result.get(function, inner.type),
        distinct,
        kept,
        tuple(replace(item, by=item.by.after(chain)) for item in order),
    )


@st.composite
def _entries(draw: Draw, names: _Names) -> Field:
    if names.chains() and draw(st.integers(0, 4)) == 4:
        call = draw(_aggregates(names))
        inner, _ = draw(st.sampled_from(dict(names.chains())[call.chain].columns()))
        return Grouped(call, inner.after(call.chain))
    found: Expression = draw(_expressions(names))
    return found
