"""Computes the expected documents: walks a read model's tree over the rows in plain Python.

It follows docs/read-models.md, and uses neither the syncer's SQL nor its code. It is slow and simple, so it is easy to
check.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar
from uuid import UUID

from tests.engine.schema import Schema
from tests.engine.tree import (
    Aggregate,
    Expression,
    Field,
    Grouped,
    Key,
    Level,
    Link,
    Name,
    Order,
    Shown,
    Tree,
)

Row = dict[str, Any]
Rows = dict[str, list[Row]]
"""The rows of each table."""
Place = TypeVar("Place", "_Here", "_Group", "_Chain")


def documents(schema: Schema, tree: Tree, rows: Rows) -> dict[str, Any]:
    """Returns all documents, by id."""
    world = _World(schema, rows)
    found = {}
    for row in rows[tree.table]:
        here = _Here(world, row, tree.level)
        if here.passes(tree.where):
            found[_id([row[column] for column in schema[tree.table].key])] = here.document(tree.level.fields)
    return found


DISTANCE = "\0distance"
"""A column of ancestors: 1 for the nearest."""


class _World:
    def __init__(self, schema: Schema, rows: Rows) -> None:
        self.schema = schema
        self.rows = rows


class _Here:
    """One row at its place in the tree (`tree.Here`)."""

    def __init__(self, world: _World, row: Row, level: Level) -> None:
        self.world = world
        self.row = row
        self.level = level

    # -- the rows that relations lead to --------------------------------------------------------------------

    def follow(self, key: Key) -> list[_Here]:
        """Returns the related rows that pass the filter, in order. Ignores the limit."""
        link = self.level.links[key]
        if link.kind == "up":
            return self._ancestors(link)
        outer = [self]
        for step in link.through:
            outer = [there for here in outer for there in here.follow(step)]
        found = []
        if not self.passes(link.when):
            return []
        for row in self.world.rows[link.table]:
            there = _Here(self.world, row, link.level)
            matched = any(_matched(row, here.row, link) for here in outer)  # once, whichever paths lead to it
            if matched and there.passes(link.where):
                found.append(there)
        return _sorted(found, self.order(link))

    def _ancestors(self, link: Link) -> list[_Here]:
        """Returns the ancestors that pass the filter. The path ends at the limit or before a repeated row."""
        primary_key = self.world.schema[link.table].key
        row, on = self.row, link.on
        seen = [] if link.step else [[row[name] for name in primary_key]]
        found = []
        for distance in range(1, (link.limit or 0) + 1):
            above = [
                other
                for other in self.world.rows[link.table]
                if all(row[below] is not None and other[its] == row[below] for its, below in on)
            ]
            assert len(above) <= 1
            if not above or (key := [above[0][name] for name in primary_key]) in seen:
                break
            seen.append(key)
            row, on = above[0], link.step or link.on
            found.append(_Here(self.world, {**row, DISTANCE: distance}, link.level))
        return _sorted([there for there in found if there.passes(link.where)], self.order(link))

    def one(self, key: Key) -> _Here | None:
        found = self.follow(key)
        assert len(found) <= 1
        return found[0] if found else None

    def order(self, link: Link) -> list[Order]:
        """Returns the declared order, followed by the primary key. Of `up`: the order of the path."""
        if link.kind == "up":
            return [Order(Name((), DISTANCE), link.farthest_first)]
        key = [Order(Name((), name)) for name in self.world.schema[link.table].key]
        return key if link.groups else [*link.order, *key]

    def passes(self, where: Expression | None) -> bool:
        return where is None or where.of(self) is True

    # -- expressions ----------------------------------------------------------------------------------------

    def name(self, name: Name) -> Any:
        here: _Here | None = self
        for key in name.through:
            here = here.one(key) if here else None
        return here.row[name.column] if here else None

    def aggregate(self, call: Aggregate) -> Any:
        return _aggregate(call, self.chains(call))

    def chains(self, call: Aggregate) -> list[_Chain]:
        """Returns the rows at the end of the chain, each with all rows on the way to it.

        They are in the order of the relations, outer relations first.
        """
        found = [_Chain(self, {(): self})]
        orders: list[Order] = []
        path: tuple[Key, ...] = ()
        for key in call.chain:
            before, path = path, (*path, key)
            link = self._level(before).links[key]
            if link.kind != "one":
                orders += [replace(order, by=order.by.after(path)) for order in self.order(link)]
            found = [
                _Chain(self, {**chain.at, path: there}) for chain in found for there in chain.at[before].follow(key)
            ]
        return _sorted(found, [*call.order, *orders])

    def _level(self, path: tuple[Key, ...]) -> Level:
        return reduce(lambda level, key: level.links[key].level, path, self.level)

    # -- documents ------------------------------------------------------------------------------------------

    def document(self, fields: dict[str, Field]) -> Row:
        return {name: self._field(entry) for name, entry in fields.items()}

    def _field(self, entry: Field) -> Any:
        if isinstance(entry, Expression):
            return json(entry.of(self))
        if isinstance(entry, Grouped):
            return self._grouped(entry)
        if isinstance(entry, dict):
            return self.document(entry)
        assert isinstance(entry, Shown)
        link = self.level.links[entry.key]
        found = self.follow(entry.key)
        if link.groups:
            return [group._element() for group in _groups(link, found)[: link.limit]]
        if link.kind == "one":
            return found[0]._element() if found else None
        return [there._element() for there in found[: link.limit if link.kind == "many" else None]]

    def _element(self) -> Any:
        return json(self.level.value.of(self)) if self.level.value else self.document(self.level.fields)

    def _grouped(self, entry: Grouped) -> Row:
        groups: dict[str, list[_Chain]] = {}
        for chain in self.chains(entry.value):
            value = chain.name(entry.by)
            if value is not None:
                groups.setdefault(text(value), []).append(chain)
        return {value: json(_aggregate(entry.value, chains)) for value, chains in groups.items()}


def _matched(row: Row, outer: Row, link: Link) -> bool:
    pairs = zip(link.pairs, link.compares_texts, strict=True)
    return all(_equal(row[its], outer[ours], texts) for (its, ours), texts in pairs)


def _equal(one: Any, other: Any, texts: bool) -> bool:
    if one is None or other is None:
        return False
    if isinstance(one, list):
        one, other = other, one
    if isinstance(other, list):
        return any(_equal(one, element, texts) for element in other if not isinstance(element, list))
    return text(one) == text(other) if texts else bool(one == other)


def _groups(link: Link, rows: list[_Here]) -> list[_Group]:
    """Returns the groups of a relation's rows, in order. NULL is a group."""
    found: dict[tuple[Any, ...], list[_Here]] = {}
    for here in rows:
        found.setdefault(tuple(group.of(here) for group in link.groups), []).append(here)
    keys = [Order(Name((), ""), of_group=group) for group in link.groups]
    return _sorted([_Group(rows) for rows in found.values()], [*link.order, *keys])


class _Group(_Here):
    """A group of rows. All but its aggregates are those of its first row by primary key (`tree.Here`)."""

    def __init__(self, rows: list[_Here]) -> None:
        super().__init__(rows[0].world, rows[0].row, rows[0].level)
        self.rows = rows

    def aggregate(self, call: Aggregate) -> Any:
        return _aggregate(call, _sorted([_Chain(here, {(): here}) for here in self.rows], call.order))


class _Chain:
    """One row that an aggregate reads, with the rows on the way to it, by path (`tree.Here`)."""

    def __init__(self, outer: _Here, at: dict[tuple[Key, ...], _Here]) -> None:
        self.outer = outer
        self.at = at

    def name(self, name: Name) -> Any:
        known = max((path for path in self.at if name.through[: len(path)] == path), key=len)
        return self.at[known].name(Name(name.through[len(known) :], name.column))

    def aggregate(self, call: Aggregate) -> Any:
        raise AssertionError("an aggregate of an aggregate")


def _aggregate(call: Aggregate, chains: list[_Chain]) -> Any:
    """Returns the value of an aggregate. If the filter excludes all rows of a group, it is the value of no rows."""
    chains = [chain for chain in chains if call.where is None or call.where.of(chain) is True]
    if call.argument is None:
        return len(chains)
    values = [call.argument.of(chain) for chain in chains]
    if call.distinct:
        values = sorted(_first_of_equals(values), key=lambda value: (value is None, value or 0))
    there = [value for value in values if value is not None]
    match call.function:
        case "count":
            return len(there)
        case "sum":
            return reduce(add, there) if there else None
        case "avg":
            mean = Decimal(reduce(add, there)) / len(there) if there else None
            return mean if mean is None else mean.quantize(Decimal("0.01"), ROUND_HALF_UP)
        case "min":
            return reduce(lambda a, b: min(b, a), there) if there else None
        case "max":
            return reduce(lambda a, b: max(b, a), there) if there else None
        case "first":
            return values[0] if values else None
        case "last":
            return values[-1] if values else None
        case "array_agg" | "array":
            return values
        case "string_agg":
            return ",".join(there) if there else None
        case "bool_and" | "every":
            return all(there) if there else None
        case "bool_or":
            return any(there) if there else None
    raise AssertionError(call.function)


def _first_of_equals(values: list[Any]) -> list[Any]:
    return list({value: value for value in reversed(values)}.values()) if values else []


def _sorted(found: list[Place], orders: Iterable[Order]) -> list[Place]:
    """Sorts by several orders: stable sorts, the last order first. Ties keep their order, also when descending."""
    for order in reversed(list(orders)):
        by = partial(_by, order)
        there = sorted((x for x in found if by(x) is not None), key=by, reverse=order.descending)
        nulls = [x for x in found if by(x) is None]
        nulls_first = order.descending if order.nulls_first is None else order.nulls_first
        found = nulls + there if nulls_first else there + nulls
    return found


def _by(order: Order, here: _Here | _Chain) -> Any:
    found = order.of_group.of(here) if order.of_group else here.name(order.by)
    return found is None if order.is_null else found


def _id(values: list[Any]) -> str:
    """Returns the id of a document: key columns joined by `|`, with `|` and `\\` escaped by `\\`."""
    if len(values) == 1:
        return text(values[0])
    return "|".join(text(value).replace("\\", "\\\\").replace("|", "\\|") for value in values)


class Padded(str):
    """A `character(n)` value. Its text has no blanks at the end."""

    __slots__ = ()


def text(value: Any) -> str:
    """Returns the text that PostgreSQL casts a value to."""
    match value:
        case bool():
            return "true" if value else "false"
        case Padded():
            return value.rstrip(" ")
        case datetime():
            return value.isoformat(" ").removesuffix(":00")
        case bytes():
            return f"\\x{value.hex()}"
    return str(value)


def json(value: Any) -> Any:
    """Returns the JSON value. Decimals with different texts are different."""
    match value:
        case list():
            return [json(item) for item in value]
        case Decimal():
            return f"decimal {value}" if value.as_tuple().exponent else int(value)
        case date():
            return value.isoformat()
        case UUID() | bytes():
            return text(value)
    return value
