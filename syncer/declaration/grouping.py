"""Binds a grouped root: a read model with one document for each group of a table's rows.

The document's key is the tuple of the group expressions. PostgreSQL evaluates them, on rows and on the row images of
change events. A key is transported as text. So these rules apply, and each violation is an error with its line:

* Equal values have the same text (`sql_types.EXACT`). A group of 1.0 and 1.00 would have two ids.
* An expression depends only on columns of the grouped table, and not on the session's time zone: its zone is a literal.
* A value is never NULL. With `nulls: drop`, rows with a NULL belong to no group.

`group_span.py` finds bounds of a column for a group, which only help an index. `group_sql.py` writes the statements.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from syncer.declaration.binding import bind
from syncer.declaration.catalog import Catalog, Column
from syncer.declaration.group_parts import in_local_time, parts_of
from syncer.declaration.group_span import is_literal_zone, span_of
from syncer.declaration.groups import ROW, Grouping, GroupKey, GroupPart
from syncer.declaration.located_yaml import Path
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.declaration.names import Word, find, quote
from syncer.declaration.node import Node
from syncer.declaration.row import Chain, Row
from syncer.declaration.sql_parser import UnsupportedExpression, parse, path_of, shown, syntax_hint
from syncer.declaration.sql_types import EXACT, KEYABLE, TEXTS, Value, key_type
from syncer.errors import Fatal

_LONGEST_NAME = 63
_INEXACT = frozenset(
    ("real", "double precision", "interval", "time without time zone", "time with time zone", "bit", "bit varying")
)
"""Types of `KEYABLE` whose values in change events differ from those in rows. `check` refuses them in any key."""
_STRICT = frozenset(
    """abs ceil ceiling floor round trunc mod div sign lower upper initcap btrim ltrim rtrim length char_length left
    right lpad rpad replace translate reverse md5 date_trunc date_bin timezone to_char make_date substring repeat
    encode decode""".split()
)
"""Functions that return NULL only if an argument is NULL."""


def bind_root(model: Model, catalog: Catalog, errors: list[Fatal]) -> Node:
    """Returns the tree of a read model, as `binding.bind` does, with the grouping of its root.

    Raises Fatal with all errors if the grouping cannot be bound, because then the document has no names.
    """
    root = bind(model, catalog, errors)
    if model.declaration.root.group is None:
        return root
    before = len(errors)
    binder = _Binder(model, root, catalog, errors)
    keys = tuple(binder.keys())
    if len(errors) > before:
        raise together(errors)
    used = {column for key in keys for column in key.columns}
    root.grouping = Grouping(keys, tuple(c for name, c in root.table.columns.items() if name in used))
    root.partials = model.declaration.root.partials
    return root


class _Columns:
    """Provides the columns of one row for group expressions. It implements `row.Columns`."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.used: set[str] = set()

    def column(self, node: Node, name: str) -> Value:
        column = node.table.columns[name]
        if column.base not in KEYABLE:
            raise UnsupportedExpression(
                f"the column {name} has the type {column.type}, which cannot be compared between events and rows",
                "use a column of another type, or store the value in a column of its own",
            )
        if column.base in _INEXACT:
            hint = "group by a column of another type"
            if column.base in ("real", "double precision"):
                table = quote(*node.table.name)
                hint += f", or change this one: ALTER TABLE {table} ALTER {quote(name)} TYPE numeric"
            what = f"the column {name} has the type {column.type}, which change events do not contain exactly"
            raise UnsupportedExpression(what, hint)
        if column.generated_from:
            raise UnsupportedExpression(
                f"the column {name} is generated, and change events leave it out",
                f"write its expression over the columns that it is computed from: {', '.join(column.generated_from)}",
            )
        self.used.add(name)
        return Value(f"{ROW}.{quote(name)}", column.base)


class _OneRow(Row):
    """Resolves the names in a group expression: columns of the grouped table only."""

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        if through:
            raise UnsupportedExpression(
                f"`{'.'.join(w.text for w in path)}` is a column of another table",
                "a row's group may depend only on the row itself: add the column to the grouped table",
            )


class _Binder:
    def __init__(self, model: Model, root: Node, catalog: Catalog, errors: list[Fatal]) -> None:
        self._model, self._root, self._catalog, self._errors = model, root, catalog, errors
        self._drop = model.declaration.root.nulls == "drop"

    def keys(self) -> Iterator[GroupKey]:
        for name, text in (self._model.declaration.root.group or {}).items():
            try:
                yield self._key(name, text)
            except UnsupportedExpression as error:
                self._report(error, ("root", "group", name))
        for node in self._root.walk():
            if node.kind == "many":
                what = f"{'.'.join(node.path)} leads to many rows, which a grouped root cannot use"
                hint = "declare only `one` relations, or group the table with the many rows"
                self._report(UnsupportedExpression(what, hint), node.place)

    def _report(self, error: UnsupportedExpression, place: Path) -> None:
        self._errors.append(Fatal(error.what, where=self._model.at(error.place or place), hint=error.hint))

    def _key(self, name: str, text: str) -> GroupKey:
        self._check_name(name)
        columns = _Columns(self._catalog)
        try:
            tree = parse(text)
        except ValueError as error:
            raise UnsupportedExpression(f"`{text}` {error}", syntax_hint(text)) from error
        value = _OneRow(columns, self._root).value(tree)
        bare = path_of(tree) is not None
        if not columns.used:
            raise UnsupportedExpression(f"`{text}` depends on no column", "name a column of the table")
        self._check_zones(tree)
        used = tuple(column for column in self._root.table.columns if column in columns.used)
        type = self._type(text, value, self._root.table.columns[used[0]] if bare else None)
        shadowed = find(Word(name), self._root.table.columns)
        if shadowed is not None and not (bare and used == (shadowed.name,)):
            what = f"the group {name!r} has the name of a column of {self._root.table.name}, and another value"
            raise UnsupportedExpression(what, "use another name")
        self._check_collation(text, tree, value, used)
        if not self._drop and not self._never_null(tree):
            what = f"`{text}` can be NULL, and a NULL is no key of a document"
            hint = "write `nulls: drop` under `root` if such rows belong to no group, or coalesce(…, …)"
            if bare:
                hint += f", or: ALTER TABLE {quote(*self._root.table.name)} ALTER {quote(used[0])} SET NOT NULL"
            raise UnsupportedExpression(what, hint)
        span = span_of(tree, self._root.table)
        parts = () if bare else tuple(parts_of(tree, _OneRow(columns, self._root).value))
        return GroupKey(name, text, tree, value.sql, value.type, type, used, bare, span, parts, self._local(tree))

    def _local(self, tree: exp.Expr) -> GroupPart | None:
        if (local := in_local_time(tree, self._root.table)) is None:
            return None
        try:
            return GroupPart(shown(local), _OneRow(_Columns(self._catalog), self._root).value(local).sql)
        except UnsupportedExpression:
            return None

    def _check_name(self, name: str) -> None:
        if len(name.encode()) > _LONGEST_NAME or not name.isprintable() or "." in name or '"' in name:
            what = f"{name!r} cannot be the name of a group"
            raise UnsupportedExpression(what, f"use at most {_LONGEST_NAME} bytes, without dots and quotes")

    def _type(self, text: str, value: Value, column: Column | None) -> str:
        """Returns the type that a key's text is cast to. column: the column that is the whole expression."""
        if value.type == "enum" and column is None:
            raise UnsupportedExpression(f"`{text}` is an enum", "group by the column itself")
        if value.type in EXACT:
            return key_type(column.type if column else value.type, value.type)
        if value.type in ("", "literal", "null"):
            raise UnsupportedExpression(f"the type of `{text}` is not certain", f"add a cast, such as ({text})::text")
        raise UnsupportedExpression(
            f"`{text}` has the type {value.type}, whose equal values can have several texts",
            _INSTEAD.get(value.type, f"cast it to a type with one text for each value: {', '.join(sorted(EXACT))}"),
        )

    def _check_zones(self, tree: exp.Expr) -> None:
        if (zone := next((z for z in zones(tree) if not is_literal_zone(z)), None)) is not None:
            raise UnsupportedExpression(
                f"the time zone {zone.sql('postgres')} of a group has to be a constant",
                "write the name of the zone, such as 'UTC' or 'Europe/Berlin'",
            )

    def _check_collation(self, text: str, tree: exp.Expr, value: Value, used: tuple[str, ...]) -> None:
        columns = [self._root.table.columns[name] for name in used]
        loose = next((c for c in columns if c.loose_collation), None)
        if loose and value.type in TEXTS and not isinstance(tree, exp.Collate):
            what = f"equal texts of {loose.name} can differ, because its collation is not deterministic"
            raise UnsupportedExpression(what, f"""write ({text}) COLLATE "C", which keeps different texts apart""")

    def _never_null(self, tree: exp.Expr) -> bool:
        """Returns whether an expression over columns that are NOT NULL has a value for every row. In doubt, False."""
        if (path := path_of(tree)) is not None:
            column = find(path[0], self._root.table.columns) if len(path) == 1 else None
            return column is not None and column.not_null
        match tree:
            case exp.Literal() | exp.Boolean() | exp.DataType() | exp.Identifier():
                return True
            case exp.Case():
                results = [branch.args["true"] for branch in tree.args["ifs"]] + [tree.args.get("default")]
                return all(result is not None and self._never_null(result) for result in results)
            case exp.Anonymous():
                name = str(tree.this).lower()
                if name == "coalesce":
                    return any(map(self._never_null, tree.expressions))
                return name in _STRICT and all(map(self._never_null, tree.expressions))
            case exp.Extract():
                return self._never_null(tree.expression)
            case exp.Paren() | exp.Neg() | exp.Not() | exp.Collate() | exp.Cast():
                return self._never_null(tree.this)
            case exp.AtTimeZone():
                return self._never_null(tree.this) and self._never_null(tree.args["zone"])
            case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.Mod() | exp.DPipe() | exp.Connector():
                return self._never_null(tree.this) and self._never_null(tree.expression)
            case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
                return self._never_null(tree.this) and self._never_null(tree.expression)
            case exp.Is():
                return True
        return False


def zones(tree: exp.Expr) -> Iterator[exp.Expr]:
    """Yields the time zones in an expression."""
    for node in tree.walk():
        if isinstance(node, exp.AtTimeZone):
            yield node.args["zone"]
        elif isinstance(node, exp.Anonymous):
            name, arguments = str(node.this).lower(), node.expressions
            if name == "date_trunc" and len(arguments) > 2:
                yield arguments[2]
            elif name == "timezone" and len(arguments) > 1:
                yield arguments[0]


_INSTEAD = {
    "numeric": "cast it to bigint, or to a text with a fixed scale: round(…, 2)::text",
    "real": "round it and cast it to bigint",
    "double precision": "round it and cast it to bigint",
    "character": "cast it to text",
    "citext": "write lower(…::text)",
    "interval": "use extract(epoch from …)::bigint",
}
"""By type: what a group can use instead."""
