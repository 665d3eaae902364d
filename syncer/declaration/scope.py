"""Builds a FROM clause: assigns aliases to tables, and adds joins and aggregates on demand.

A scope starts with the tables that it scans. Expressions add the rest. A `one` relation becomes a LEFT JOIN, which
never multiplies rows. All aggregates over a relation become a single LATERAL sub-select. So a relation is scanned only
once, and only tables that an expression uses are joined.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from syncer.declaration import text_links
from syncer.declaration.aggregates import Order
from syncer.declaration.ancestors_sql import path_up
from syncer.declaration.array_links import element, flat
from syncer.declaration.catalog import Catalog
from syncer.declaration.names import quote
from syncer.declaration.node import Node
from syncer.declaration.outer_conditions import outer_condition
from syncer.declaration.row import Chain, filtered, ordering, value_of
from syncer.declaration.sql_types import Value


@dataclass
class Aliases:
    """Creates the aliases of one statement. All its scopes share this object."""

    catalog: Catalog
    bounds: dict[Node, Callable[[str], str]] = field(default_factory=dict)
    """By relation: returns a further condition for a scan of its rows under an alias (`partials.py`)."""
    _counts: dict[str, int] = field(default_factory=dict)

    def alias(self, letter: str) -> str:
        self._counts[letter] = self._counts.get(letter, -1) + 1
        return f"{letter}{self._counts[letter]}"


class Scope:
    """A FROM clause under construction."""

    def __init__(self, aliases: Aliases, outer: Scope | None = None) -> None:
        self.aliases = aliases
        self.groups: dict[Node, Group] = {}
        self._outer = outer
        self._alias_of: dict[Node, str] = {}
        self._joins: list[str] = []
        self._objects: dict[str, str] = {}
        self._later: dict[str, Callable[[], str]] = {}

    @property
    def catalog(self) -> Catalog:
        return self.aliases.catalog

    def scan(self, node: Node) -> str:
        """Returns the alias of a table that this scope itself scans. The caller writes the FROM item."""
        return self._alias_of.setdefault(node, self.aliases.alias("t"))

    def alias(self, node: Node) -> str:
        """Returns the alias of a node's row, which is scanned here, joined here, or part of an outer scope."""
        if node in self._alias_of:
            return self._alias_of[node]
        if node.kind == "one" and node.parent is not None and not self._is_outer(node):
            return self._join(node, self.alias(node.parent))
        if self._outer is None:
            raise AssertionError(f"no scope has a row of {'.'.join(node.path)}")
        return self._outer.alias(node)

    def _is_outer(self, node: Node) -> bool:
        """Returns whether the row that this `one` relation belongs to is a row of an outer scope."""
        owner: Node | None = node
        while owner is not None and owner not in self._alias_of and owner.kind == "one":
            owner = owner.parent
        return owner not in self._alias_of

    def _join(self, node: Node, parent: str) -> str:
        alias = self._alias_of[node] = self.aliases.alias("t")
        matched = link(node, alias, parent, self.catalog)
        if node.where is None:
            self._joins.append(f"LEFT JOIN {quote(*node.table.name)} {alias} ON {matched}")
        else:
            inner = Scope(self.aliases, self)
            row = inner.scan(node)
            condition = both(link(node, row, parent, self.catalog), filtered(inner, node))
            source = f"{quote(*node.table.name)} {row}{inner.joined(condition)}"
            self._joins.append(f"LEFT JOIN LATERAL (SELECT {row}.* FROM {source}) {alias} ON true")
        return alias

    def column(self, node: Node, name: str) -> Value:
        """Returns a column of a node's row, and marks it as used."""
        return value_of(node.use(name), f"{self.alias(node)}.{quote(name)}", self.catalog)

    def group(self, chain: Chain) -> Group:
        """Returns the group of the aggregates over the rows at the end of a chain of relations."""
        if chain[-1] not in self.groups:
            self.groups[chain[-1]] = Group(self, chain)
        return self.groups[chain[-1]]

    def json_object(self, columns: str) -> str:
        """Returns a JSON object with these columns as fields.

        This is `row_to_json` of a sub-select in the FROM clause. PostgreSQL flattens it, so it is faster than a
        sub-select in the select list.
        """
        alias = self.aliases.alias("d")
        self._objects[alias] = columns
        return f"pg_catalog.row_to_json({alias}.*)"

    def later(self, write: Callable[[], str]) -> str:
        """Returns a mark for SQL that can only be written when all aggregates of this scope are known."""
        mark = f"\x01{self.aliases.alias('later')}\x01"
        self._later[mark] = write
        return mark

    def replace_marks(self, *texts: str) -> list[str]:
        """Returns the texts with all marks replaced. Call it after all expressions are written, and before `joined`."""
        found = list(texts)
        while self._later:
            mark, write = self._later.popitem()
            sql = write()
            found = [text.replace(mark, sql) for text in found]
            self._objects = {alias: text.replace(mark, sql) for alias, text in self._objects.items()}
        return found

    def joined(self, condition: str = "", *, alone: bool = False) -> str:
        """Returns the SQL after the scanned tables: joins, aggregates and WHERE.

        alone: the scope scans no table.
        """
        groups = [f"CROSS JOIN LATERAL ({g.sql()}) {g.alias}" for g in self.groups.values()]  # may add joins
        objects = [f"CROSS JOIN LATERAL (SELECT {text}) {alias}" for alias, text in self._objects.items()]
        text = "".join(f" {part}" for part in [*self._joins, *groups, *objects])
        if alone and text:
            text = f" FROM (VALUES (1)) one_row{text}"
        return f"{text} WHERE {condition}" if condition else text


class Group:
    """A scan over the rows at the end of a chain of relations, and the aggregates over these rows."""

    def __init__(self, outer: Scope, chain: Chain) -> None:
        self.alias = outer.aliases.alias("g")
        self.inner = Scope(outer.aliases, outer)
        first = next(position for position, node in enumerate(chain) if node.kind == "many")
        self.chain = chain
        self.is_direct = sum(node.kind == "many" for node in chain) == 1
        """Whether the rows are exactly those of the relation, so that this scan can also provide its list."""
        self._scanned = chain[first:]
        self._items: dict[str, str] = {}
        for node in self._scanned:
            self.inner.scan(node)

    def item(self, sql: str) -> str:
        """Adds an output to the scan. Returns the SQL that refers to it outside the scan."""
        name = self._items.setdefault(sql, f"a{len(self._items)}")
        return f"{self.alias}.{name}"

    def order(self) -> list[Order]:
        """Returns the orders of the relations, outer before inner ones. Each ends with the primary key."""
        return [item for node in self._scanned if node.kind == "many" for item in ordering(self.inner, node)]

    def sql(self, by: str = "") -> str:
        """Returns the sub-select. It has one row. With `by`, it has a row for each value of `by`, in the column k."""
        *items, by = self.inner.replace_marks(*self._items, by)
        names = self._items.values()
        outputs = [
            *([f"{by} AS k"] if by else []),
            *(f"{i} AS {n}" for i, n in zip(items, names, strict=True)),
        ]
        return f"SELECT {', '.join(outputs)} {rows(self.inner, self._scanned)}{' GROUP BY 1' if by else ''}"


def rows(scope: Scope, scanned: Sequence[Node]) -> str:
    """Returns FROM and WHERE of a scan over linked tables. Call it after everything that adds joins to the scope."""
    source, conditions = "", list[str]()
    for node in scanned:
        alias = scope.scan(node)
        if node.through:
            table = f"{quote(*node.table.name)} {alias}"
            links, matched = linked_values(scope, node, alias)
            source += (
                f" CROSS JOIN LATERAL {links} JOIN {table} ON {matched}"
                if source
                else f"{links} JOIN {table} ON {matched}"
            )
        else:
            table, matched = rows_of(node, alias, _parent(scope, node), scope.catalog)
            if source:
                source += f" JOIN {table} ON {matched or 'true'}"
            else:
                source, conditions = table, [matched]
        conditions.append(bounded(scope, node, alias))
        if node.where is not None:
            conditions.append(filtered(scope, node))
    return f"FROM {source}{scope.joined(both(*conditions))}"


def bounded(scope: Scope, node: Node, alias: str) -> str:
    """Returns the condition for the rows of one bucket. Empty if the statement renders no buckets of the relation."""
    bounds = scope.aliases.bounds.get(node)
    return bounds(alias) if bounds else ""


def linked_values(outer: Scope, node: Node, alias: str) -> tuple[str, str]:
    """Returns a FROM item with the distinct link values at the end of a path, and the condition for a linked row.

    Distinct values link to distinct rows. So each linked row occurs once, however many paths lead to it. Of an array,
    these are the distinct elements.
    """
    scope, here = Scope(outer.aliases, outer), outer.aliases.alias("k")
    scanned = node.through
    for one in scanned:
        scope.scan(one)
    end = node.through[-1]
    values, conditions = [], []
    for n, (own, other) in enumerate(node.on):
        ours, theirs = node.table.columns[own], end.table.columns[other]
        if theirs.base == "array":
            value = f"pg_catalog.unnest({flat(f'{scope.alias(end)}.{quote(other)}')})"
        else:
            value = text_links.compared(theirs, ours, scope.column(end, other).sql)
        values.append(f"{value} AS v{n}")
        conditions.append(text_links.matched(ours, f"{alias}.{quote(own)}", element(theirs), f"{here}.v{n}"))
    return f"(SELECT DISTINCT {', '.join(values)} {rows(scope, scanned)}) {here}", both(*conditions)


def _parent(scope: Scope, node: Node) -> str:
    if node.parent is None:
        raise AssertionError("the root has no outer row")
    return scope.alias(node.parent)


def rows_of(node: Node, alias: str, parent: str, catalog: Catalog) -> tuple[str, str]:
    """Returns a FROM item for the rows that a relation leads to, and the condition that links them to the parent."""
    linked = link(node, alias, parent, catalog)
    if node.climb is None:
        return f"{quote(*node.table.name)} {alias}", linked
    for own, other in node.climb.step:
        node.use(own)
        node.use(other)
    return f"{path_up(node, parent)} {alias}", ""


def link(node: Node, alias: str, parent: str, catalog: Catalog) -> str:
    """Returns the condition that links a node's row to its parent's row, with the node's `when`."""
    above = node.parent
    if above is None:
        raise AssertionError("the root has no parent")
    pairs = []
    for own, other in node.on:
        for of, column in ((node, own), (above, other)):
            if of.table.columns[column].base != "array":  # `compile` marks the arrays of links
                of.use(column)
        sides = node.table.columns[own], f"{alias}.{quote(own)}", above.table.columns[other], f"{parent}.{quote(other)}"
        pairs.append(text_links.matched(*sides))
    return both(*pairs, outer_condition(node, parent, catalog))


def both(*conditions: str) -> str:
    """Joins the conditions that are not empty with AND."""
    return " AND ".join(c for c in conditions if c)
