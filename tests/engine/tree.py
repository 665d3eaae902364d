"""A read model as a tree of values, which can write its YAML. `oracle.py` evaluates it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.engine.schema import word

Key = tuple[str, ...]
"""The name of a relation at its row: one word, or two if the relation is in an object."""


@dataclass(frozen=True)
class Name:
    """A column of this row, or of a row that relations lead to."""

    through: tuple[Key, ...]
    column: str

    def __str__(self) -> str:
        return ".".join(map(word, [*(part for key in self.through for part in key), self.column]))

    def after(self, path: tuple[Key, ...]) -> Name:
        """Returns the name of the same column, seen from the beginning of a path that leads here."""
        return Name((*path, *self.through), self.column)


class Here(Protocol):
    """The row at which an expression is evaluated."""

    def name(self, name: Name) -> Any: ...

    def aggregate(self, call: Aggregate) -> Any: ...


@dataclass(frozen=True)
class Expression:
    """SQL, and the same expression in Python."""

    sql: str
    type: str
    of: Callable[[Here], Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Order:
    by: Name
    descending: bool = False
    nulls_first: bool | None = None
    """None: SQL's default, last when ascending and first when descending."""
    is_null: bool = False
    """Whether the order is by `IS NULL`."""
    of_group: Expression | None = None
    """The ordered expression, if groups are ordered. `by` is not used then."""

    def __str__(self) -> str:
        nulls = {None: "", True: " nulls first", False: " nulls last"}[self.nulls_first]
        by = f"({self.of_group.sql})" if self.of_group else str(self.by)
        by = f"({by} is null)" if self.is_null else by
        return f"{by}{' desc' if self.descending else ''}{nulls}"


@dataclass(frozen=True)
class Aggregate:
    function: str
    chain: tuple[Key, ...]
    """The relations to the aggregated rows. The last one is a `many`. Empty in a list of groups, for its rows."""
    argument: Expression | None
    """None: counts rows."""
    type: str
    distinct: bool = False
    where: Expression | None = None
    order: tuple[Order, ...] = ()

    @property
    def sql(self) -> str:
        inner = self.argument.sql if self.argument else ".".join(map(word, sum(self.chain, ()))) or "*"
        inner = f"distinct {inner}" if self.distinct else inner
        separated = f"{inner}, ','" if self.function == "string_agg" else inner
        by = f" order by {', '.join(map(str, self.order))}" if self.order else ""
        kept = f" filter (where {self.where.sql})" if self.where else ""
        call = f"{self.function}({separated}{by}){kept}"
        return f"round({call}, 2)" if self.function == "avg" else call


@dataclass(frozen=True)
class Grouped:
    """An object: an aggregate for each value of a name along its chain."""

    value: Aggregate
    by: Name


@dataclass(frozen=True)
class Shown:
    """A relation as a field of the document."""

    key: Key


Field = Expression | Grouped | Shown | dict[str, Any]
"""A dict: a nested object over the same row."""


@dataclass(frozen=True)
class Level:
    """The declaration for one row: its relations, shown or hidden, and its document or value."""

    links: dict[Key, Link]
    fields: dict[str, Field] = field(default_factory=dict)
    value: Expression | None = None


@dataclass(frozen=True)
class Link:
    kind: str
    """`one`, `many` or `up`."""
    table: str
    on: tuple[tuple[str, str], ...]
    """Pairs: (column of the other table, column of this table or, with `through`, of the rows at its end).

    Both are compared as texts if one of them ends with `::text`. `any(…)` stands for the elements of an array.
    """
    level: Level
    where: Expression | None = None
    order: tuple[Order, ...] = ()
    limit: int | None = None
    """Of `up`: the greatest number of ancestors."""
    through: tuple[Key, ...] = ()
    """The relations of the row that the link goes through."""
    groups: tuple[Expression, ...] = ()
    """Expressions over a row. If there are any, `level` and `order` are those of groups."""
    when: Expression | None = None
    """A condition over this row."""
    step: tuple[tuple[str, str], ...] = ()
    """Of `up`: the link to the next ancestor. Empty: `on`, and the outer row is a row of the same tree."""
    farthest_first: bool = True
    """Of `up`."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Returns `on` without casts and `any`."""
        return [(_bare(its), _bare(ours)) for its, ours in self.on]

    @property
    def compares_texts(self) -> list[bool]:
        return [any(side.endswith(TEXT) for side in pair) for pair in self.on]


TEXT = "::text"


def _bare(side: str) -> str:
    return side.removesuffix(TEXT).removeprefix("any(").removesuffix(")")


@dataclass(frozen=True)
class Tree:
    table: str
    level: Level
    where: Expression | None = None

    def yaml(self) -> dict[str, Any]:
        """Returns the declaration as values for PyYAML."""
        filtered = {"where": self.where.sql} if self.where else {}
        root = {"table": f"public.{word(self.table)}"}
        return {"name": "model", "root": root, **filtered, **_level(self.level), "sink": {"memory": {}}}

    def links(self) -> Iterator[Link]:
        yield from _links(self.level)


def _links(level: Level) -> Iterator[Link]:
    for link in level.links.values():
        yield link
        yield from _links(link.level)


def _level(level: Level) -> dict[str, Any]:
    shown = set(_shown(level.fields))
    hidden = {".".join(key): _link(link) for key, link in level.links.items() if key not in shown}
    entries: dict[str, Any] = {"relations": hidden} if hidden else {}
    if level.fields:
        entries["document"] = _fields(level, level.fields)
    if level.value:
        entries["value"] = level.value.sql
    return entries


def _shown(fields: dict[str, Field]) -> Iterator[Key]:
    for entry in fields.values():
        if isinstance(entry, Shown):
            yield entry.key
        elif isinstance(entry, dict):
            yield from _shown(entry)


def _fields(level: Level, fields: dict[str, Field]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, entry in fields.items():
        if isinstance(entry, Expression):
            entries[name] = entry.sql
        elif isinstance(entry, Grouped):
            entries[name] = {"value": entry.value.sql, "group_by": str(entry.by)}
        elif isinstance(entry, Shown):
            entries[name] = _link(level.links[entry.key])
        else:
            entries[name] = {"object": _fields(level, entry)}
    return entries


def _side(through: tuple[Key, ...], text: str) -> str:
    name = str(Name(through, _bare(text)))
    return f"any({name})" if text.startswith("any(") else f"{name}{TEXT if text.endswith(TEXT) else ''}"


def _link(link: Link) -> dict[str, Any]:
    on = {_side((), its): _side(link.through, ours) for its, ours in link.on}
    entries: dict[str, Any] = {link.kind: word(link.table), "on": on}
    if link.when:
        entries["when"] = link.when.sql
    if link.where:
        entries["where"] = link.where.sql
    if link.order:
        entries["order_by"] = [str(order) for order in link.order]
    if link.groups:
        entries["group_by"] = [group.sql for group in link.groups]
    if link.limit:
        entries["limit"] = link.limit
    if link.step:
        entries["step"] = {word(its): word(below) for its, below in link.step}
    if not link.farthest_first:
        entries["first"] = "nearest"
    return entries | _level(link.level)
