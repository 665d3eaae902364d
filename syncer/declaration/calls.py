"""Writes function calls, and the SQL constructs that look like calls: `extract`, `substring`, `trim`, `overlay`, …

Only functions of `functions.py` and `extensions.py` are accepted. `expressions.py` dispatches to this module, and
passes itself as the writer of the arguments.
"""

from __future__ import annotations

import re
from typing import Protocol

from sqlglot import exp

from syncer.declaration import extensions
from syncer.declaration.catalog import Catalog
from syncer.declaration.functions import AGGREGATES, FUNCTIONS, KEYWORDS, NOT_BUILT_IN, WRONG, result_type
from syncer.declaration.names import Word, near
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, aggregate_of
from syncer.declaration.sql_types import TEXTS, Value, common


class Names(Protocol):
    """Resolves the names in an expression, at one place of the tree."""

    def whole(self, tree: exp.Expr) -> Value | None:
        """Returns a part of the expression that is known as a whole here, such as a group expression. Usually None."""
        ...

    def column(self, path: tuple[Word, ...]) -> Value:
        """Returns the column of this name. Raises UnsupportedExpression with the nearest correct name."""
        ...

    def aggregate(self, call: Aggregate) -> Value:
        """Returns the SQL of an aggregate. Raises UnsupportedExpression."""
        ...


class Writer(Protocol):
    """Writes the arguments of a call."""

    names: Names
    catalog: Catalog

    def value(self, node: exp.Expr) -> Value: ...


def extract(writer: Writer, node: exp.Expr) -> Value:
    field = str(node.this.this)
    if not re.fullmatch(r"\w+", field):
        raise UnsupportedExpression(f"{field!r} is not a field of a date or time", "such as year, month, day or epoch")
    return Value(f"extract({field} FROM {writer.value(node.expression).sql})", "numeric")


def substring(writer: Writer, node: exp.Expr) -> Value:
    parts = [writer.value(node.args[k]) for k in ("this", "start", "length") if node.args.get(k)]
    kind = "text" if parts[0].type in (*TEXTS, "literal") else ""
    return Value(f"pg_catalog.substring({', '.join(p.sql for p in parts)})", kind)


def trim(writer: Writer, node: exp.Expr) -> Value:
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or ""), "btrim")
    parts = [writer.value(node.args[k]).sql for k in ("this", "expression") if node.args.get(k)]
    return Value(f"pg_catalog.{name}({', '.join(parts)})", "text")


def position(writer: Writer, node: exp.Expr) -> Value:
    inner, outer = writer.value(node.args["substr"]), writer.value(node.this)
    return Value(f"pg_catalog.position({outer.sql}, {inner.sql})", "integer")


def overlay(writer: Writer, node: exp.Expr) -> Value:
    keys = ("this", "expression", "from_", "for_")
    parts = [writer.value(node.args[k]).sql for k in keys if node.args.get(k)]
    return Value(f"pg_catalog.overlay({', '.join(parts)})", "text")


def qualified(writer: Writer, node: exp.Expr) -> Value:
    """Writes `pg_catalog.lower(x)`. Other uses of a dot are names, which are resolved elsewhere, or are refused."""
    function = node.expression
    if isinstance(function, exp.Anonymous) and isinstance(node.this, exp.Identifier):
        schema = node.this.name if node.this.args.get("quoted") else node.this.name.lower()
        of_extension = function.name.lower() in extensions.FUNCTIONS
        if schema == "pg_catalog" and not of_extension:
            return call(writer, function)
        if of_extension and schema == writer.catalog.extensions.get("postgis"):
            return call(writer, function)
        raise UnsupportedExpression(f"{node.this.name}.{function.name} is not a built-in function of PostgreSQL")
    raise UnsupportedExpression("cannot use a field of a composite value", "show the whole value: it becomes an object")


def filtered(writer: Writer, node: exp.Expr) -> Value:
    """Writes a call with `filter (where …)`."""
    if not isinstance(node.this, exp.Anonymous):
        raise UnsupportedExpression("FILTER is only allowed after an aggregate")
    return call(writer, node.this, node.expression.this)


def call(writer: Writer, node: exp.Expr, filter: exp.Expr | None = None) -> Value:
    """Writes a call of an aggregate or a function, qualified with its schema.

    filter: the condition of an aggregate's FILTER clause. Raises UnsupportedExpression.
    """
    name = node.name if isinstance(node.this, exp.Identifier) else str(node.this).lower()
    if name in AGGREGATES:
        return writer.names.aggregate(aggregate_of(name, node, filter))
    if filter is not None:
        raise UnsupportedExpression(f"FILTER is only allowed after an aggregate, and {name}() is not an aggregate")
    if name in ("all", "some") and len(node.expressions) == 1:
        return Value(f"{'ALL' if name == 'all' else 'ANY'} ({writer.value(node.expressions[0]).sql})")
    if name in extensions.FUNCTIONS:
        given = [writer.value(e) for e in node.expressions]
        return extensions.call(name, given, writer.catalog.extensions)
    if name not in FUNCTIONS and name not in KEYWORDS:
        meant = near(name, sorted(FUNCTIONS.keys() | AGGREGATES.keys()))
        hint = WRONG.get(name) or (f"did you mean {meant!r}?" if meant else NOT_BUILT_IN.format(name))
        raise UnsupportedExpression(f"{name}() is not among the functions that an expression can use", hint)
    if name == "age" and len(node.expressions) != 2:
        raise UnsupportedExpression("age() with one argument depends on the clock", "use age(later, earlier)")
    arguments = [writer.value(e) for e in node.expressions]
    sql = f"{name if name in KEYWORDS else 'pg_catalog.' + name}({', '.join(a.sql for a in arguments)})"
    if name in ("coalesce", "nullif", "greatest", "least"):
        return Value(sql, *common(arguments[:1] if name == "nullif" else arguments))
    return Value(sql, "composite" if name == "row" else result_type(name, [a.type for a in arguments]))
