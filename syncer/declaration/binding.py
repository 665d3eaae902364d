"""Binds a read model to the catalog: builds the tree of tables and resolves names in it.

A node is one use of a table; a table that is used twice has two nodes. While the SQL is generated, each node collects
the columns that the SQL reads (`used`). From them the syncer knows which changes can affect a document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

from syncer.declaration.catalog import Catalog, Column, Table
from syncer.declaration.form import Many, ManyRelation, Object, OneRelation, Shown
from syncer.declaration.located_yaml import Path
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model, named_tables
from syncer.declaration.names import Word, find, nearest, quote, spellings, words
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.declaration.sql_types import INTEGERS, KEYABLE, TEXTS
from syncer.errors import Fatal

Namespace = dict[str, Union["Node", "Namespace"]]
"""Relations by name. A nested object that contains relations is a namespace of its own."""


@dataclass(eq=False, slots=True)
class Node:
    """One use of a table in the tree of relations."""

    kind: Literal["root", "one", "many"]
    path: tuple[str, ...]
    place: Path
    """The path of this table's declaration in the YAML."""
    table: Table
    parent: Node | None = None
    on: tuple[tuple[str, str], ...] = ()
    """The link to the parent, as pairs of this table's column and the parent's column."""
    where: str | None = None
    order: list[str] = field(default_factory=list)
    limit: int | None = None
    links: Namespace = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    """The names of relations that are declared here and could not be bound."""

    def use(self, column: str) -> Column:
        """Marks a column as used by the document, and returns it."""
        found = self.table.columns[column]
        self.used |= {column, *found.generated_from}
        return found

    def walk(self) -> Iterator[Node]:
        """Yields this node and those below it, parents first."""
        yield self
        yield from _walk(self.links)

    def follow(self, path: tuple[Word, ...]) -> tuple[tuple[Node, ...], str | None]:
        """Resolves a dotted name at this node. Returns the relations that it passes through, and the column.

        The column is None if the name ends at a relation. Raises UnsupportedExpression with the nearest correct name.
        """
        through: list[Node] = []
        here, names = self, self.links
        for position, word in enumerate(path):
            columns = here.table.columns if names is here.links else {}
            last = position == len(path) - 1
            if last and (column := find(word, columns)) is not None:
                return tuple(through), column.name
            found = find(word, names)
            if found is None and {word.text, word.text.lower()} & here.broken:
                raise UnsupportedExpression(f"the relation {word.text!r} could not be bound", follows=True)
            if found is None:
                raise _unknown(word, here, columns, names, last=last)
            if isinstance(found, Node):
                through.append(found)
                here, names = found, found.links
            else:
                names = found
        if names is not here.links:
            raise UnsupportedExpression(f"{path[-1].text!r} is an object, not a value", nearest("", names))
        return tuple(through), None


def _unknown(
    word: Word, here: Node, columns: Mapping[str, Column], names: Namespace, *, last: bool
) -> UnsupportedExpression:
    if not last and find(word, columns) is not None:
        return UnsupportedExpression(f"{word.text!r} is a column, not a relation", nearest(word.text, names))
    what = "column or relation" if last else "relation"
    where = f"{here.table.name} has" if columns else "there is"
    known = [*columns, *names] if last else [*names]
    return UnsupportedExpression(f"{where} no {what} {word.text!r} here", nearest(word.text, known))


def _walk(names: Namespace) -> Iterator[Node]:
    for found in names.values():
        yield from found.walk() if isinstance(found, Node) else _walk(found)


def bind(model: Model, catalog: Catalog, errors: list[Fatal]) -> Node:
    """Returns the tree of a read model.

    Relations that cannot be bound are left out of the tree. `errors` receives an error for every unknown name, with
    its line. Raises Fatal with all errors if the root table cannot be bound.
    """
    binder = _Binder(model, catalog, errors)
    declaration = model.declaration
    root = binder.tables.get(("root", "table"))
    if root is None:
        raise together(errors)
    node = Node("root", (), (), root, where=declaration.where)
    binder.links(declaration.relations, node, node.links, (), ("relations",))
    binder.links(declaration.document, node, node.links, (), ("document",))
    return node


class _Binder:
    def __init__(self, model: Model, catalog: Catalog, errors: list[Fatal]) -> None:
        self._model, self._catalog, self._errors = model, catalog, errors
        self.tables: dict[Path, Table] = {}
        for text, place in named_tables(model):
            try:
                self.tables[place] = self._table(text, place)
            except Fatal as error:
                errors.append(error)

    def links(
        self, entries: Mapping[str, object], node: Node, names: Namespace, path: tuple[str, ...], place: Path
    ) -> None:
        """Binds the relations among the fields of a node's document, or of an object in it."""
        for name, entry in entries.items():
            here = (*place, name)
            if isinstance(entry, OneRelation | ManyRelation):
                link = self._link(entry, node, (*path, name), here)
                if link is None:
                    node.broken.add(name)
                elif "." in name:
                    self._report(f"the name of the relation {name!r} contains a dot", here, "use another name")
                elif name in names:
                    self._report(f"the relation {name!r} is declared twice", here, "rename one of them")
                else:
                    names[name] = link
            elif isinstance(entry, Object):
                inner: Namespace = {}
                self.links(entry.object, node, inner, (*path, name), (*here, "object"))
                if inner:
                    names[name] = inner

    def _link(self, entry: OneRelation | ManyRelation, parent: Node, path: tuple[str, ...], place: Path) -> Node | None:
        """Returns the node of a relation, or None if it could not be bound."""
        kind: Literal["one", "many"] = "one" if isinstance(entry, OneRelation) else "many"
        table = self.tables.get((*place, kind))
        if table is None:
            return None
        node = Node(kind, path, place, table, parent, where=entry.where)
        if isinstance(entry, ManyRelation):
            node.order = entry.order
            node.limit = entry.limit if isinstance(entry, Many) else None
        node.on = self._on(entry.on, table, parent.table, (*place, "on"))
        bound = len(node.on) == len(entry.on)
        if bound and kind == "one":
            self._unique(node)
        self.links(entry.relations, node, node.links, path, (*place, "relations"))
        if isinstance(entry, Shown):
            self.links(entry.document or {}, node, node.links, path, (*place, "document"))
        return node if bound else None

    def _table(self, text: str, place: Path) -> Table:
        """Returns the table of this name. Raises Fatal if the change stream cannot have its changes."""
        try:
            names = spellings(text)
        except ValueError as error:
            raise self._error(str(error), place) from error
        found = next((self._catalog.tables[n] for n in names if n in self._catalog.tables), None)
        if found is None:
            known = [*self._catalog.tables, *self._catalog.others]
            same = [table for table in known if table.name == names[-1].name]  # in another schema
            hint = f"did you mean {str(same[0])!r}?" if same else nearest(str(names[-1]), map(str, known))
            raise self._error(f"there is no table {names[-1]}", place, hint)
        if found.kind not in ("table", "partitioned"):
            what = f"{found.name} is a {found.kind}, and PostgreSQL logs no changes of it"
            raise self._error(what, place, _INSTEAD.get(found.kind, ""))
        if found.persistence != "permanent":
            what = f"{found.name} is {found.persistence}, and PostgreSQL does not log its changes"
            hint = f"ALTER TABLE {quote(*found.name)} SET LOGGED" if found.persistence == "unlogged" else ""
            raise self._error(what, place, hint)
        if found.inherits:
            what = f"{found.name} is part of an inheritance tree, which is not supported"
            raise self._error(what, place, "use declarative partitioning")
        if not found.primary_key:
            what, unique = f"{found.name} has no primary key", _unique_columns(found)
            if unique:
                what += f"; the unique index on ({', '.join(unique)}) is not enough"
            key = ", ".join(map(quote, unique)) or "…"
            raise self._error(what, place, f"ALTER TABLE {quote(*found.name)} ADD PRIMARY KEY ({key})")
        for column in map(found.columns.__getitem__, found.primary_key):
            if column.base not in KEYABLE:
                what = f"the primary key column {found.name}.{column.name} has the unsupported type {column.type}"
                raise self._error(what, place, _NOT_A_KEY)
        return found

    def _on(self, pairs: Mapping[str, str], table: Table, parent: Table, place: Path) -> tuple[tuple[str, str], ...]:
        found = []
        for own, other in pairs.items():
            try:
                inner = self._column(own, table, (*place, own))
                outer = self._column(other, parent, (*place, own))
                if hint := _incomparable(inner, outer):
                    one, two = f"{table.name}.{inner.name}", f"{parent.name}.{outer.name}"
                    what = f"cannot link {one} ({inner.type}) and {two} ({outer.type})"
                    if hint == _OTHER_TYPE:
                        hint += _same_type(table, inner, parent, outer)
                    raise self._error(what, (*place, own), hint)
                found.append((inner.name, outer.name))
            except Fatal as error:
                self._errors.append(error)
        return tuple(found)

    def _column(self, text: str, table: Table, place: Path) -> Column:
        try:
            parts = words(text)
        except ValueError as error:
            raise self._error(str(error), place) from error
        found = find(parts[0], table.columns) if len(parts) == 1 else None
        if found is None:
            hint = nearest(text.strip('"'), table.columns)
            raise self._error(f"{table.name} has no column {text}", place, hint)
        return found

    def _unique(self, node: Node) -> None:
        columns = {own for own, _ in node.on}
        unique = (i for i in node.table.indexes if i.unique and not i.partial and i.columns)
        if any(set(i.columns) <= columns for i in unique):
            return
        listed = ", ".join(sorted(columns))
        hint = f"use `many`, or make the value unique: CREATE UNIQUE INDEX ON {node.table.name} ({listed})"
        what = f"{node.table.name} can have many rows with the same value of ({listed})"
        self._report(what, (*node.place, "on"), hint)

    def _report(self, what: str, place: Path, hint: str = "") -> None:
        self._errors.append(self._error(what, place, hint))

    def _error(self, what: str, place: Path, hint: str = "") -> Fatal:
        return Fatal(what, where=self._model.at(place), hint=hint)


_NOT_A_KEY = "use a built-in type whose values have exactly one text each, such as bigint, text or uuid"


_ARRAY = (
    "an array of ids cannot be a link. Store the pairs in a table, such as post_tags (post_id, tag_id), and "
    "go through it: {many: post_tags, on: {post_id: id}, relations: {tag: {one: tags, on: {id: tag_id}}}, "
    "value: tag.name}"
)
_OTHER_TYPE = "give both columns the same type"
_TABLES = "declare the tables behind the view: their rows as relations, the view's expressions as fields"
_INSTEAD = {
    "view": _TABLES,
    "materialized view": _TABLES,
    "foreign table": "copy its rows into a table of this database, and declare that table",
}
"""The advice for each kind of relation that is not a table."""


def _unique_columns(table: Table) -> tuple[str, ...]:
    """Returns the columns of a unique index that could become the primary key. An index without NULLs is preferred."""
    unique = [index.columns for index in table.indexes if index.unique and not index.partial]
    unique.sort(key=lambda columns: (not all(table.columns[c].not_null for c in columns), len(columns)))
    return unique[0] if unique else ()


def _same_type(table: Table, inner: Column, parent: Table, outer: Column) -> str:
    """Returns the statement that gives both columns the same type.

    A text column gets the type of the other one, and any column that of an integer: keys are often integers.
    """
    altered, column, type = table, inner, outer.type
    if outer.base in TEXTS or (inner.base in INTEGERS and outer.base not in INTEGERS):
        altered, column, type = parent, outer, inner.type
    name = quote(column.name)
    return f": ALTER TABLE {quote(*altered.name)} ALTER {name} TYPE {type} USING {name}::{type}"


def _incomparable(inner: Column, outer: Column) -> str:
    """Returns advice if two columns cannot be linked by a built-in `=` and an index, otherwise an empty text."""
    for column in (inner, outer):
        if column.base == "array":
            return _ARRAY
        if column.base not in KEYABLE:
            return _NOT_A_KEY
    pair = {inner.base, outer.base}
    if len(pair) == 1:
        same = inner.base != "enum" or inner.type == outer.type
        return "" if same else "use the same enum type for both columns"
    if pair <= {*INTEGERS, "numeric"} or pair <= set(TEXTS):
        return ""
    return _OTHER_TYPE
