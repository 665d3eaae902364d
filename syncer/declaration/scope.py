"""One FROM clause being put together: which table has which alias, what is joined, what is aggregated.

A scope begins with the tables that it scans. Whatever an expression asks for beyond them is added on demand:
a `one` relation as a LEFT JOIN, which never multiplies rows, and the aggregates over a relation as one
LATERAL sub-select, however many there are. A relation is scanned once, nothing is joined that nobody uses.
"""

# ruff: noqa: S608 - what is joined here are quoted names and expressions written anew

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlglot import exp

from syncer.declaration import extensions
from syncer.declaration.aggregates import Order, write_aggregate
from syncer.declaration.binding import Node
from syncer.declaration.catalog import Catalog
from syncer.declaration.expressions import write
from syncer.declaration.names import Word, quote
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, parse, parse_order
from syncer.declaration.sql_types import Value

Chain = tuple[Node, ...]


@dataclass
class Aliases:
    """What all scopes of one statement share."""

    catalog: Catalog
    _counts: dict[str, int] = field(default_factory=dict)

    def alias(self, letter: str) -> str:
        self._counts[letter] = self._counts.get(letter, -1) + 1
        return f"{letter}{self._counts[letter]}"


class Scope:
    def __init__(self, sheet: Aliases, outer: Scope | None = None) -> None:
        self.sheet = sheet
        self.groups: dict[Node, Group] = {}
        self._outer = outer
        self._aliases: dict[Node, str] = {}
        self._joins: list[str] = []
        self._objects: dict[str, str] = {}
        self._later: dict[str, Callable[[], str]] = {}

    def scan(self, node: Node) -> str:
        """The alias of a table that this scope itself scans; whoever calls writes the FROM."""
        return self._aliases.setdefault(node, self.sheet.alias("t"))

    def alias(self, node: Node) -> str:
        """The alias of a node's row: scanned here, joined here, or of the scope around."""
        if node in self._aliases:
            return self._aliases[node]
        if node.kind == "one" and node.parent is not None and not self._is_outer(node):
            return self._join(node, self.alias(node.parent))
        if self._outer is None:
            raise AssertionError(f"no row of {'.'.join(node.path)} here")
        return self._outer.alias(node)

    def _is_outer(self, node: Node) -> bool:
        """Whether the row that this `one` hangs on is a row of the scope around."""
        around: Node | None = node
        while around is not None and around not in self._aliases and around.kind == "one":
            around = around.parent
        return around not in self._aliases

    def _join(self, node: Node, parent: str) -> str:
        alias = self._aliases[node] = self.sheet.alias("t")
        matched = link(node, alias, parent)
        if node.where is None:
            self._joins.append(f"LEFT JOIN {quote(*node.table.name)} {alias} ON {matched}")
        else:
            inner = Scope(self.sheet, self)
            row = inner.scan(node)
            condition = both(link(node, row, parent), filtered(inner, node))
            source = f"{quote(*node.table.name)} {row}{inner.joined(condition)}"
            self._joins.append(f"LEFT JOIN LATERAL (SELECT {row}.* FROM {source}) {alias} ON true")
        return alias

    def column(self, node: Node, name: str) -> Value:
        """A column of a node's row. json is read as jsonb: its own text can hold line breaks."""
        column = node.use(name)
        sql = f"{self.alias(node)}.{quote(name)}"
        array = column.base == "array"
        base = column.element_base if array else column.base
        if base == "money" or base.startswith("reg"):
            what = f"the text of {column.type} ({name}) depends on the session"
            raise UnsupportedExpression(what, "leave it out, or give the table a column of the type numeric or text")
        if found := extensions.column_type(column, self.sheet.catalog.extensions):
            return Value(sql, "array", found) if array else Value(sql, found)
        if base == "json":
            return (
                Value(f"{sql}::pg_catalog.jsonb[]", "array", "jsonb")
                if array
                else Value(f"{sql}::pg_catalog.jsonb", "jsonb")
            )
        if base == "composite":
            return Value(f"pg_catalog.to_jsonb({sql})", "jsonb")
        return Value(sql, "array", base) if array else Value(sql, base)

    def group(self, chain: Chain) -> Group:
        """The aggregates over the rows at the end of a chain of relations."""
        if chain[-1] not in self.groups:
            self.groups[chain[-1]] = Group(self, chain)
        return self.groups[chain[-1]]

    def json_object(self, columns: str) -> str:
        """A JSON object with these columns as fields.

        `row_to_json` of a sub-select in the FROM, which PostgreSQL flattens: faster than one in the list.
        """
        alias = self.sheet.alias("d")
        self._objects[alias] = columns
        return f"pg_catalog.row_to_json({alias}.*)"

    def later(self, write: Callable[[], str]) -> str:
        """A mark for SQL that is written once all aggregates of this scope are known."""
        mark = f"\x01{self.sheet.alias('later')}\x01"
        self._later[mark] = write
        return mark

    def settle(self, *texts: str) -> list[str]:
        """The texts with all marks replaced. Call it after everything is written, before `joined`."""
        found = list(texts)
        while self._later:
            mark, write = self._later.popitem()
            sql = write()
            found = [text.replace(mark, sql) for text in found]
            self._objects = {alias: text.replace(mark, sql) for alias, text in self._objects.items()}
        return found

    def joined(self, condition: str = "", *, alone: bool = False) -> str:
        """What follows the scanned tables: joins, aggregates, WHERE. `alone`: nothing is scanned."""
        groups = [f"CROSS JOIN LATERAL ({g.sql()}) {g.alias}" for g in self.groups.values()]  # may ask for joins
        objects = [f"CROSS JOIN LATERAL (SELECT {text}) {alias}" for alias, text in self._objects.items()]
        text = "".join(f" {part}" for part in [*self._joins, *groups, *objects])
        if alone and text:
            text = f" FROM (VALUES (1)) one_row{text}"
        return f"{text} WHERE {condition}" if condition else text


class Group:
    """One scan over the rows that a chain of relations leads to, and what is computed from them."""

    def __init__(self, outer: Scope, chain: Chain) -> None:
        self.alias = outer.sheet.alias("g")
        self.inner = Scope(outer.sheet, outer)
        first = next(place for place, node in enumerate(chain) if node.kind == "many")
        self.chain = chain
        self.is_direct = sum(node.kind == "many" for node in chain) == 1
        """Whether its rows are those of the relation, one for one, so that a list can come from this scan."""
        self._scanned = chain[first:]
        self._items: dict[str, str] = {}
        for node in self._scanned:
            self.inner.scan(node)

    def item(self, sql: str) -> str:
        """Compute this; the answer is how to refer to it from outside."""
        name = self._items.setdefault(sql, f"a{len(self._items)}")
        return f"{self.alias}.{name}"

    def order(self) -> list[Order]:
        """Outer relations' order before inner ones', each ending in its primary key."""
        return [item for node in self._scanned if node.kind == "many" for item in ordering(self.inner, node)]

    def sql(self, by: str = "") -> str:
        """The sub-select: one row; with `by`, a row for each value of it, called k."""
        *items, by = self.inner.settle(*self._items, by)
        names = self._items.values()
        outputs = [
            *([f"{by} AS k"] if by else []),
            *(f"{i} AS {n}" for i, n in zip(items, names, strict=True)),
        ]
        source, conditions = "", list[str]()
        for node in self._scanned:
            alias = self.inner.scan(node)
            table, matched = f"{quote(*node.table.name)} {alias}", link(node, alias, self._parent(node))
            if source:
                source += f" JOIN {table} ON {matched}"
            else:
                source, conditions = table, [matched]
            if node.where is not None:
                conditions.append(filtered(self.inner, node))
        tail = self.inner.joined(both(*conditions))
        return f"SELECT {', '.join(outputs)} FROM {source}{tail}{' GROUP BY 1' if by else ''}"

    def _parent(self, node: Node) -> str:
        if node.parent is None:
            raise AssertionError("the root is not scanned for an aggregate")
        return self.inner.alias(node.parent)


def link(node: Node, alias: str, parent: str) -> str:
    """The condition that links a node's row to its parent's."""
    above = node.parent
    if above is None:
        raise AssertionError("the root has no parent")
    pairs = []
    for own, other in node.on:
        node.use(own)
        above.use(other)
        pairs.append(f"{alias}.{quote(own)} = {parent}.{quote(other)}")
    return " AND ".join(pairs)


class Row:
    """The names at one row (`expressions.Names`): its columns, those of its `one` relations, and aggregates.

    group: where to compute aggregates; None where they cannot stand.
    """

    def __init__(self, scope: Scope, node: Node, group: Callable[[Chain], Group] | None = None) -> None:
        self.scope = scope
        self.node = node
        self._group = group

    def column(self, path: tuple[Word, ...]) -> Value:
        through, column = self.node.follow(path)
        if column is None:
            raise UnsupportedExpression(
                f"`{describe(path)}` is a relation, not a value", f"name a column of it: {describe(path)}.…"
            )
        self._check(path, through)
        return self.scope.column(through[-1] if through else self.node, column)

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        if any(node.kind == "many" for node in through):
            raise UnsupportedExpression(
                f"`{describe(path)}` has many values", f"use an aggregate, such as max({describe(path)})"
            )

    def aggregate(self, call: Aggregate) -> Value:
        if self._group is None:
            raise UnsupportedExpression(
                f"{call.name}() cannot stand in a filter, an order, a grouping or another aggregate"
            )
        return write_aggregate(call, InGroup(self._group(self.chain(call)), self.node))

    def chain(self, call: Aggregate) -> Chain:
        """The relations to the rows that an aggregate counts: all its names lie along them."""
        longest: Chain = ()
        chains = []
        for path in call.paths():
            through, _ = self.node.follow(path)
            last = max((place + 1 for place, n in enumerate(through) if n.kind == "many"), default=0)
            chains.append(through[:last])
            longest = max(longest, through[:last], key=len)
        if not longest:
            many = [".".join(n.path) for n in self.node.walk() if n.kind == "many"]
            names = f"such as {', '.join(many)}" if many else "there is none below this row"
            raise UnsupportedExpression(f"{call.name}() needs a name that goes through a `many` relation", names)
        if any(chain != longest[: len(chain)] for chain in chains):
            raise UnsupportedExpression(
                f"the names in {call.name}() belong to different relations", "use an aggregate for each"
            )
        return longest

    def shown(self, text: str) -> Value:
        """An expression over this row, as a document shows it. Raises Unfit."""
        return extensions.shown(self.write(text), text, self.scope.sheet.catalog.extensions)

    def write(self, text: str) -> Value:
        """An expression over this row. Raises Unfit."""
        try:
            tree = parse(text)
        except ValueError as error:
            raise UnsupportedExpression(f"`{text}` {error}") from error
        return self.value(tree)

    def value(self, tree: exp.Expr) -> Value:
        return write(tree, self, self.scope.sheet.catalog)

    def condition(self, text: str) -> str:
        """A filter over this row."""
        found = self.write(text)
        if found.type not in ("boolean", "", "null"):
            raise UnsupportedExpression(f"`{text}` is no condition, it is of the type {found.type}")
        return found.sql

    def order_item(self, tree: exp.Ordered) -> Order:
        value = self.value(tree.this)
        if isinstance(tree.this, exp.Literal):
            raise UnsupportedExpression(f"an order by the constant {value.sql} is none", "name a column")
        return Order(value.sql, bool(tree.args.get("desc")), bool(tree.args.get("nulls_first")))


class InGroup(Row):
    """The names in an aggregate (`aggregates.Rows`): as at the outer row, read in the scan of the group."""

    def __init__(self, group: Group, node: Node) -> None:
        super().__init__(group.inner, node)
        self.item = group.item
        self.order = group.order

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        """Many values are what an aggregate is for."""

    def relation(self, path: tuple[Word, ...]) -> str | None:
        through, column = self.node.follow(path)
        if column is not None:
            return None
        end = through[-1]
        return "*" if end.kind == "many" else self.scope.column(end, end.on[0][0]).sql


def both(*conditions: str) -> str:
    """All of the conditions that there are."""
    return " AND ".join(c for c in conditions if c)


def filtered(scope: Scope, node: Node) -> str:
    """The condition that `where` sets for a node's row; empty if there is none."""
    if node.where is None:
        return ""
    try:
        return Row(scope, node).condition(node.where)
    except UnsupportedExpression as error:
        error.place = (*node.place, "where")
        raise


def ordering(scope: Scope, node: Node) -> list[Order]:
    """The order of a relation's rows: what is declared, then the primary key: only one order is right."""
    row = Row(scope, node)
    found = []
    try:
        for text in node.order:
            found += [row.order_item(item) for item in _items(text)]
    except UnsupportedExpression as error:
        error.place = (*node.place, "order_by")
        raise
    key = [Order(scope.column(node, column).sql) for column in node.table.primary_key]
    ordered = {item.sql for item in found}
    return found + [item for item in key if item.sql not in ordered]


def _items(text: str) -> list[exp.Ordered]:
    try:
        return parse_order(text)
    except ValueError as error:
        raise UnsupportedExpression(f"the order `{text}` {error}") from error


def describe(path: tuple[Word, ...]) -> str:
    return ".".join(quote(w.text) if w.quoted else w.text for w in path)
