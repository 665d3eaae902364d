"""Generates the SQL that renders one document from the tree. PostgreSQL returns the document as JSON text.

An object is `row_to_json` of a row whose columns are the fields. It contains no spaces and line breaks. A list is an
array of such objects. If all rows of a relation are both listed and aggregated, a single scan provides both.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from syncer.declaration.aggregates import Order
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import Field
from syncer.declaration.form import Entry, Grouped, Many, Object, One, Up
from syncer.declaration.group_document import GroupRows, shared_columns
from syncer.declaration.grouped_level import GroupedLevel, Level
from syncer.declaration.groups import Grouping
from syncer.declaration.located_yaml import Path
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.declaration.names import quote
from syncer.declaration.node import Namespace, Node
from syncer.declaration.outer_conditions import outer_condition
from syncer.declaration.row import Chain, InGroup, Row, filtered, ordering
from syncer.declaration.scope import Aliases, Group, Scope, both, bounded, link, rows
from syncer.declaration.sort_keys import mergeable
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.declaration.sql_types import Value
from syncer.declaration.through_sql import first_of_all
from syncer.errors import Fatal

_LONGEST_NAME = 63


class Output(NamedTuple):
    """The SQL of one field, and the type of its values."""

    sql: str
    field: Field


class Document(NamedTuple):
    """The document of one row of the root table."""

    row: str
    """The alias of the root row in the SQL."""
    sql: str
    """A sub-select that returns `doc`. It returns no row if the filter excludes the root row, or if there is none."""
    fields: tuple[Field, ...]
    is_aggregated: bool = False
    """Whether it is the document of a group, and has an aggregate over its rows."""


def render(model: Model, root: Node, catalog: Catalog, errors: list[Fatal]) -> Document:
    """Returns the document of the root table's rows.

    errors: the errors found in the tree so far. Raises Fatal with them and with an error for every expression that
    cannot be used, each with its line.
    """
    renderer = _Renderer(model, errors)
    for node in root.walk():
        renderer.check(node, catalog)
    scope = Scope(Aliases(catalog))
    row = scope.scan(root)
    rows = renderer.group(scope, root, root.grouping) if root.grouping else None
    outputs = renderer.outputs(scope, root, root.links, model.declaration.document, ("document",))
    if errors:
        raise together(errors)
    if rows:
        return _document_of_group(scope, row, rows, outputs)
    condition = both(f"{row}.{quote(root.table.primary_key[0])} IS NOT NULL", filtered(scope, root))
    (doc,) = scope.replace_marks(scope.json_object(_columns(outputs)))
    sql = f"SELECT {doc}::pg_catalog.text AS doc{scope.joined(condition, alone=True)}"
    return Document(row, sql, tuple(o.field for o in outputs))


def _document_of_group(scope: Scope, row: str, rows: GroupRows, outputs: Sequence[Output]) -> Document:
    (doc,) = scope.replace_marks(scope.json_object(_columns(outputs)))
    source = f"({rows.sql()}) {rows.alias}"
    if any(key.bare for key in rows.grouping.keys):
        source += f" CROSS JOIN ({shared_columns(rows.grouping)}) {row}"
    sql = f"SELECT {doc}::pg_catalog.text AS doc FROM {source}{scope.joined()}"
    return Document(row, sql, tuple(o.field for o in outputs), rows.is_aggregated)


def _columns(outputs: Sequence[Output]) -> str:
    return ", ".join(f"{o.sql} AS {quote(o.field.name)}" for o in outputs)


def sorted_rows(model: Model, outer: Scope, node: Node, name: str, entry: Many) -> tuple[str, list[Order]]:
    """Returns the SQL of a list with a limit, in a form that can be merged with others, and its order.

    Each element is an array of texts: the values of the order (`sort_keys.py`), and the element of the document.
    Raises UnsupportedExpression if the order cannot be merged.
    """
    scope = Scope(outer.aliases, outer)
    scope.scan(node)
    element = _Renderer(model, []).element(scope, node, name, entry, ("document", name))
    order = ordering(scope, node)
    return f"{_scan(scope, outer, node, mergeable(element.sql, order))}::pg_catalog.text", order


class _Renderer:
    def __init__(self, model: Model, errors: list[Fatal]) -> None:
        self._model, self._errors = model, errors
        self._levels: dict[Node, Level] = {}

    def group(self, scope: Scope, node: Node, grouping: Grouping) -> GroupRows:
        """Declares that the document at this node is one of a group of its rows. Returns the scan of the rows."""
        rows = self._levels[node] = GroupRows(scope, node, grouping)
        return rows

    def _row(self, scope: Scope, node: Node) -> Row:
        level = self._levels.get(node)
        return level.row(scope) if level else Row(scope, node, scope.group)

    def check(self, node: Node, catalog: Catalog) -> None:
        """Validates the conditions and the order of a node, which the document may not use. `used` stays as it is."""
        used = {n: set(n.used) for n in (*node.walk(), *([node.parent] if node.parent else []))}
        try:
            outer_condition(node, "", catalog)
        except UnsupportedExpression as error:
            self._add(error, node.place)
        for write in (filtered, ordering):
            scope = Scope(Aliases(catalog))
            scope.scan(node)
            try:
                write(scope, node)
            except UnsupportedExpression as error:
                self._add(error, node.place)
        for n, before in used.items():
            n.used = before

    def outputs(
        self, scope: Scope, node: Node, names: Namespace, entries: Mapping[str, Entry], place: Path
    ) -> list[Output]:
        """Returns the fields of a document at this row. Collects mistakes, so that all are reported together."""
        found = []
        for name, entry in entries.items():
            here = (*place, name)
            try:
                if len(name.encode()) > _LONGEST_NAME:
                    raise UnsupportedExpression(
                        f"the field name {name!r} is longer than {_LONGEST_NAME} bytes", "use a shorter name"
                    )
                if not name.isprintable():
                    raise UnsupportedExpression(f"the field name {name!r} contains a control character")
                found.append(self._output(scope, node, names, name, entry, here))
            except UnsupportedExpression as error:
                self._add(error, here)
        return found

    def _output(self, scope: Scope, node: Node, names: Namespace, name: str, entry: Entry, place: Path) -> Output:
        below = names.get(name)
        level = self._levels.get(node)
        if level and isinstance(entry, Grouped | Many | Up):
            hint = "use an aggregate over the rows of the group" if isinstance(entry, Grouped) else "use `one`"
            raise UnsupportedExpression(f"the field {name!r} is of a kind that {level.what} cannot have", hint)
        if level and isinstance(below, Node) and isinstance(entry, One):
            level.check_relation(below, name)
        if isinstance(entry, str):
            value = self._row(scope, node).shown(entry)
            return Output(value.sql, _field(name, value))
        if isinstance(entry, Grouped):
            return Output(_grouped(entry, scope, node), Field(name, "jsonb", many=False))
        if isinstance(entry, Object):
            links = below if isinstance(below, dict) else {}
            outputs = self.outputs(scope, node, links, entry.object, (*place, "object"))
            return Output(
                scope.json_object(_columns(outputs)),
                Field(name, "object", False, tuple(o.field for o in outputs)),
            )
        if not isinstance(below, Node):
            raise UnsupportedExpression(f"the relation {name!r} could not be bound", follows=True)
        if isinstance(entry, One):
            found = self.element(scope, below, name, entry, place)
            there = f"{scope.alias(below)}.{quote(below.on[0][0])} IS NOT NULL"
            return Output(f"CASE WHEN {there} THEN {found.sql} END", found.field)
        return self._list(scope, below, name, entry, place)

    def element(self, scope: Scope, node: Node, name: str, entry: One | Many | Up, place: Path) -> Output:
        """Returns a related row as the document shows it: an object, or one value."""
        if entry.document is not None:
            outputs = self.outputs(scope, node, node.links, entry.document, (*place, "document"))
            return Output(
                scope.json_object(_columns(outputs)),
                Field(name, "object", False, tuple(o.field for o in outputs)),
            )
        try:
            value = self._row(scope, node).shown(entry.value or "")
        except UnsupportedExpression as error:
            error.place = error.place or (*place, "value")
            raise
        if value.type == "array":
            value = value._replace(sql=f"pg_catalog.to_jsonb({value.sql})")
        return Output(value.sql, _field(name, value))

    def _groups(self, outer: Scope, node: Node, name: str, entry: Many, place: Path) -> Output:
        """Returns a list with one element for each group of the relation's rows."""
        part = "group_by"
        try:
            level = GroupedLevel(outer, node, entry.groups)
            self._levels[node] = level
            part = "order_by"
            order = level.ordering(entry.order)
        except UnsupportedExpression as error:
            error.place = error.place or (*place, part)
            raise
        found = self.element(level.scope, node, name, entry, place)
        sql = f"pg_catalog.array_to_json(ARRAY({level.sql(found.sql, order, entry.limit)}))"
        return Output(sql, Field(name, found.field.type, True, found.field.fields))

    def _list(self, outer: Scope, node: Node, name: str, entry: Many | Up, place: Path) -> Output:
        if isinstance(entry, Many) and entry.groups:
            return self._groups(outer, node, name, entry, place)
        scope = Scope(outer.aliases, outer)
        scope.scan(node)
        found = self.element(scope, node, name, entry, place)

        def write() -> str:
            group = outer.groups.get(node) if node.limit is None else None
            if group is None or not group.is_direct:
                return _scan(scope, outer, node, found.sql)
            again = self.element(group.inner, node, name, entry, place)
            return f"coalesce({group.item(_aggregated(again.sql, group.order()))}, '[]'::pg_catalog.json)"

        many = Field(name, found.field.type, True, found.field.fields)
        return Output(outer.later(write), many)

    def _add(self, error: UnsupportedExpression, place: Path) -> None:
        if not error.follows:
            where = self._model.at(error.place or place)
            self._errors.append(Fatal(error.what, where=where, hint=error.hint))


def _aggregated(element: str, order: Sequence[Order]) -> str:
    return f"pg_catalog.array_to_json(pg_catalog.array_agg({element} ORDER BY {', '.join(map(str, order))}))"


def _scan(scope: Scope, outer: Scope, node: Node, element: str) -> str:
    """Returns a list that needs a scan of its own. With a limit, rows are selected before other tables are joined."""
    if node.parent is None:
        raise AssertionError("the root is no list")
    alias = scope.scan(node)
    (element,) = scope.replace_marks(element)
    if node.limit is None:
        order = _sorted(scope, node)
        return f"pg_catalog.array_to_json(ARRAY(SELECT {element} {rows(scope, [node])}{order}))"
    if node.through:
        source, order = first_of_all(outer, node, alias)
        return f"pg_catalog.array_to_json(ARRAY(SELECT {element} FROM {source}{scope.joined()}{order}))"
    chosen = Scope(outer.aliases, outer)
    row = chosen.scan(node)
    linked = both(link(node, row, outer.alias(node.parent), outer.catalog), bounded(outer, node, row))
    condition = both(linked, filtered(chosen, node))
    order = _sorted(chosen, node)
    source = f"(SELECT {row}.* FROM {quote(*node.table.name)} {row}{chosen.joined(condition)}{order}"
    source += f" LIMIT {node.limit}) {alias}"
    order = _sorted(scope, node)
    return f"pg_catalog.array_to_json(ARRAY(SELECT {element} FROM {source}{scope.joined()}{order}))"


def _sorted(scope: Scope, node: Node) -> str:
    return f" ORDER BY {', '.join(map(str, ordering(scope, node)))}"


def _grouped(entry: Grouped, scope: Scope, node: Node) -> str:
    """Returns an object with a field for each value of `group_by`, in byte order. NULL has no field."""
    groups: list[Group] = []

    def group(chain: Chain) -> Group:
        if not groups:
            groups.append(Group(scope, chain))
        if groups[0].chain != chain:
            raise UnsupportedExpression(
                "the aggregates in `value` belong to different relations", "write a field for each relation"
            )
        return groups[0]

    value = Row(scope, node, group).shown(entry.value)
    if not groups:
        raise UnsupportedExpression("`value` with `group_by` needs an aggregate", "write one, such as count(relation)")
    by = InGroup(groups[0], node).write(entry.group_by)
    rows = groups[0].sql(by=f"({by.sql})::pg_catalog.text")
    alias = groups[0].alias
    inner = f"SELECT {alias}.k AS k, {value.sql} AS v FROM ({rows}) {alias} WHERE {alias}.k IS NOT NULL"
    pair = "pg_catalog.to_json(x.k)::text || ':' || coalesce(pg_catalog.to_json(x.v)::text, 'null')"
    joined = f"pg_catalog.string_agg({pair}, ',' ORDER BY x.k COLLATE pg_catalog.\"C\")"
    return f"(SELECT coalesce('{{' || {joined} || '}}', '{{}}')::pg_catalog.json FROM ({inner}) x)"


def _field(name: str, value: Value) -> Field:
    def known(type: str) -> str:
        return {"literal": "text", "null": "unknown", "": "unknown"}.get(type, type)

    if value.type == "array":
        return Field(name, known(value.element), many=True)
    return Field(name, known(value.type), many=False)
