"""Validates SQL expressions node by node, and generates them again with every name resolved.

The text of the user never becomes part of a statement. Three properties hold for the generated SQL:

1. Every node is in one of the tables below. So there are no subqueries, window functions or parameters, and no
   functions that depend on anything but the row.
2. Every name was resolved by `Names`.
3. It means what PostgreSQL would read in the user's text. The grammar of sqlglot differs from PostgreSQL's in details.
   Therefore a tree is refused, with a request for parentheses, if an operand does not bind tighter than its operator.
   Only one tree satisfies that rule, so both parsers must have read the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from syncer.declaration import calls, extensions
from syncer.declaration.calls import Names
from syncer.declaration.catalog import Catalog
from syncer.declaration.functions import (
    BINARY,
    CAST,
    IS,
    NOT,
    OTHER,
    PATTERN,
    REFUSED,
    SEE_REFERENCE,
    SUBSCRIPT,
    UNARY,
    precedence,
)
from syncer.declaration.names import literal
from syncer.declaration.sql_parser import UnsupportedExpression, describe, path_of
from syncer.declaration.sql_types import BUILTIN, Value, arithmetic, cast_target, common, concatenation

_OF_ANY_TYPE = frozenset(("first", "last", "array", "array_agg", "count", "coalesce"))
_NEGATABLE = (exp.Like, exp.ILike, exp.SimilarTo)
_CLOCK = frozenset(("now", "today", "tomorrow", "yesterday"))
_IN_TIMES = re.compile(r"now|today|tomorrow|yesterday|on|am|pm|ad|bc|z|zulu|utc|msk|dst|[a-z]{1,4}t|[a-z_]+/[a-z_/]+")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_IGNORED_ARGUMENTS = {"typed", "safe", "only_json_types", "_type"}


def write(tree: exp.Expr, names: Names, catalog: Catalog) -> Value:
    """Returns the SQL of an expression, and its type if it is known. Raises UnsupportedExpression."""
    return _Writer(names, catalog).value(tree)


class _Writer:
    """Writes the nodes of one expression. It implements `calls.Writer`."""

    def __init__(self, names: Names, catalog: Catalog) -> None:
        self.names = names
        self.catalog = catalog

    def value(self, node: exp.Expr) -> Value:
        found = self.names.whole(node) or self._any(node)
        if found.type and found.type not in BUILTIN and node.parent is not None:
            self._need_cast(node, found)
        return found

    def _any(self, node: exp.Expr) -> Value:
        if (path := path_of(node)) is not None:
            return self.names.column(path)
        if type(node) in BINARY:
            return self._binary(node)
        if (writer := _WRITERS.get(type(node))) is None:
            raise UnsupportedExpression(*REFUSED.get(type(node), (f"cannot use {describe(node)}", SEE_REFERENCE)))
        method, allowed = writer
        extra = {k for k, v in node.args.items() if v} - set(allowed.split()) - _IGNORED_ARGUMENTS
        if extra:
            raise UnsupportedExpression(f"cannot use {describe(node)} in this form", SEE_REFERENCE)
        return method(self, node)

    def _need_cast(self, node: exp.Expr, found: Value) -> None:
        """Refuses a value of an extension's type as an operand, except in a cast and a few other places.

        The session's search path does not include the extension's operators and functions.
        """
        operand, parent = node, node.parent
        while isinstance(parent, exp.Paren):
            operand, parent = parent, parent.parent
        if isinstance(parent, exp.Anonymous):
            name = str(parent.this).lower()
            if name in _OF_ANY_TYPE or name in extensions.FUNCTIONS:
                return
        if isinstance(parent, exp.If | exp.Case) and operand.arg_key in ("true", "default"):
            return
        if not isinstance(parent, exp.Cast | exp.Is | exp.Ordered | exp.Distinct | None):
            raise UnsupportedExpression(
                f"{describe(node)} has the type {found.type}, whose operators are not built into PostgreSQL",
                extensions.instead(describe(node).strip("`"), found.type),
            )

    def _operand(self, node: exp.Expr, least: int, parent: exp.Expr) -> Value:
        """Returns an operand. Raises UnsupportedExpression if PostgreSQL might parse the text differently.

        least: the lowest precedence that the operand may have.
        """
        if precedence(node) < least:
            raise UnsupportedExpression(
                f"{describe(parent)} can be read in two ways", f"put parentheses around {describe(node)}"
            )
        return self.value(node)

    def _binary(self, node: exp.Expr) -> Value:
        operator, precedence, result = BINARY[type(node)]
        left_least = precedence if precedence in (1, 2, OTHER, 9, 10, 11) else precedence + 1
        left = self._operand(node.this, left_least, node)
        right = self._operand(node.expression, precedence + 1, node)
        if isinstance(node, _NEGATABLE) and node.args.get("negate"):
            operator = f"NOT {operator}"
        sql = f"({left.sql} {operator} {right.sql})"
        match result:
            case "||":
                return Value(sql, *concatenation(left, right))
            case "+" | "-" | "*" | "/" | "%":
                return Value(sql, arithmetic(result, left.type, right.type))
            case "=1":
                return Value(sql, left.type)
        return Value(sql, "" if result == "?" else result)

    def constant(self, node: exp.Expr) -> Value:
        text = str(node.this)
        if node.args.get("is_string"):
            if _depends_on_clock(text) and not _cast_to_text(node):
                raise UnsupportedExpression(
                    f"PostgreSQL may read {literal(text)} as a time that depends on the clock",
                    f"if it is a text, write {literal(text)}::text",
                )
            return Value(literal(text), "literal")
        if not _NUMBER.fullmatch(text):
            raise UnsupportedExpression(f"{text!r} is not a number in PostgreSQL")
        return Value(text, "numeric" if not text.isdigit() or int(text) >= 1 << 63 else _integer(text))

    def bits(self, node: exp.Expr) -> Value:
        return Value(f"B{literal(str(node.this))}", "bit")

    def paren(self, node: exp.Expr) -> Value:
        return self.value(node.this)

    def null(self, node: exp.Expr) -> Value:
        return Value("NULL", "null")

    def boolean(self, node: exp.Expr) -> Value:
        return Value("true" if node.this else "false", "boolean")

    def negation(self, node: exp.Expr) -> Value:
        return Value(f"(NOT {self._operand(node.this, NOT, node).sql})", "boolean")

    def negative(self, node: exp.Expr) -> Value:
        operand = self._operand(node.this, UNARY, node)
        return Value(f"(- {operand.sql})", operand.type)

    def prefixed(self, node: exp.Expr) -> Value:
        operator = "~" if isinstance(node, exp.BitwiseNot) else "|/" if isinstance(node, exp.Sqrt) else "||/"
        return Value(f"({operator} {self._operand(node.this, OTHER, node).sql})")

    def is_(self, node: exp.Expr) -> Value:
        right = node.expression
        if not isinstance(right, exp.Null | exp.Boolean):
            raise UnsupportedExpression(f"cannot use {describe(node)}", SEE_REFERENCE)
        negated = "NOT " if node.args.get("negate") else ""
        left = self._operand(node.this, IS + 1, node)
        return Value(f"({left.sql} IS {negated}{self.value(right).sql})", "boolean")

    def between(self, node: exp.Expr) -> Value:
        parts = [self._operand(node.args[k], PATTERN + 1, node).sql for k in ("this", "low", "high")]
        return Value("({} BETWEEN {} AND {})".format(*parts), "boolean")

    def in_(self, node: exp.Expr) -> Value:
        if not node.expressions:
            raise UnsupportedExpression("`in` needs a list of values")
        options = ", ".join(self.value(e).sql for e in node.expressions)
        return Value(f"({self._operand(node.this, PATTERN + 1, node).sql} IN ({options}))", "boolean")

    def escape(self, node: exp.Expr) -> Value:
        pattern = self.value(node.this).sql
        return Value(f"({pattern[1:-1]} ESCAPE {self._operand(node.expression, 7, node).sql})", "boolean")

    def text_match(self, node: exp.Expr) -> Value:
        if len(node.expressions) != 1:
            raise UnsupportedExpression(f"cannot use {describe(node)}", SEE_REFERENCE)
        left = self._operand(node.expressions[0], OTHER, node)
        return Value(f"({left.sql} @@ {self._operand(node.this, OTHER + 1, node).sql})", "boolean")

    def quantified(self, node: exp.Expr) -> Value:
        return Value(f"ANY ({self.value(node.this).sql})")

    def case(self, node: exp.Expr) -> Value:
        parts, results = ["CASE"], []
        if node.this:
            parts.append(self.value(node.this).sql)
        for branch in node.args["ifs"]:
            results.append(self.value(branch.args["true"]))
            parts.append(f"WHEN {self.value(branch.this).sql} THEN {results[-1].sql}")
        if default := node.args.get("default"):
            results.append(self.value(default))
            parts.append(f"ELSE {results[-1].sql}")
        return Value(f"{' '.join(parts)} END", *common(results))

    def array(self, node: exp.Expr) -> Value:
        items = [self.value(e) for e in node.expressions]
        kind, element = common(items)
        return Value(f"ARRAY[{', '.join(i.sql for i in items)}]", "array", element if kind == "array" else kind)

    def row(self, node: exp.Expr) -> Value:
        return Value(f"ROW({', '.join(self.value(e).sql for e in node.expressions)})", "composite")

    def json_step(self, node: exp.Expr) -> Value:
        """Writes the constant after `->`, which sqlglot has turned into a path of one step."""
        steps = node.expressions[1:]
        if len(steps) == 1 and isinstance(steps[0], exp.JSONPathKey) and isinstance(steps[0].this, str):
            return Value(literal(steps[0].this), "literal")
        if len(steps) == 1 and isinstance(steps[0], exp.JSONPathSubscript) and isinstance(steps[0].this, int):
            return Value(str(steps[0].this), "integer")
        raise UnsupportedExpression("cannot use this key after `->`", "put it in parentheses")

    def subscript(self, node: exp.Expr) -> Value:
        if isinstance(node.this, exp.Cast):
            raise UnsupportedExpression(
                f"{describe(node)} can be read in two ways", f"write ({describe(node.this)})[…]"
            )
        base = self._operand(node.this, SUBSCRIPT, node)
        sliced = any(isinstance(e, exp.Slice) for e in node.expressions)
        sql = f"({base.sql})[{', '.join(self.value(e).sql for e in node.expressions)}]"
        if sliced or base.type != "array":
            return Value(sql, base.type, base.element)
        return Value(sql, base.element)

    def slice(self, node: exp.Expr) -> Value:
        return Value(":".join(self.value(e).sql if e else "" for e in (node.this, node.expression)))

    def cast(self, node: exp.Expr) -> Value:
        operand = self._operand(node.this, CAST, node)
        if (found := extensions.cast(operand, node.args["to"], self.catalog.extensions)) is not None:
            return found
        try:
            target = cast_target(node.args["to"], self.catalog.enums)
        except ValueError as error:
            raise UnsupportedExpression(str(error.args[0]), error.args[1] if len(error.args) > 1 else "") from error
        return Value(f"({operand.sql}::{target.sql})", target.type, target.element)

    def at_time_zone(self, node: exp.Expr) -> Value:
        operand = self._operand(node.this, 12, node)
        zone = self._operand(node.args["zone"], 13, node)
        flipped = {
            "timestamp with time zone": "timestamp without time zone",
            "timestamp without time zone": "timestamp with time zone",
        }
        return Value(f"({operand.sql} AT TIME ZONE {zone.sql})", flipped.get(operand.type, ""))

    def collate(self, node: exp.Expr) -> Value:
        name = node.expression
        if not isinstance(name, exp.Identifier) or name.name not in ("C", "POSIX", "ucs_basic"):
            raise UnsupportedExpression('only the collations "C" and "POSIX" are allowed', 'write COLLATE "C"')
        operand = self._operand(node.this, 13, node)
        return Value(f'({operand.sql} COLLATE pg_catalog."{name.name}")', operand.type)


def _depends_on_clock(text: str) -> bool:
    """Returns whether PostgreSQL could read the text as a time such as `now` or `today 10:00 CET`."""
    words = re.findall(r"[a-z_/]+", text.lower())
    return not _CLOCK.isdisjoint(words) and all(map(_IN_TIMES.fullmatch, words))


def _cast_to_text(node: exp.Expr) -> bool:
    parent = node.parent
    kind = parent.args["to"].this if isinstance(parent, exp.Cast) else None
    return kind in (exp.DType.TEXT, exp.DType.VARCHAR)


def _integer(text: str) -> str:
    return "integer" if int(text) < 1 << 31 else "bigint"


_Method = Callable[[_Writer, exp.Expr], Value]
_WRITERS: dict[type[exp.Expr], tuple[_Method, str]] = {
    exp.Literal: (_Writer.constant, "this is_string"),
    exp.BitString: (_Writer.bits, "this"),
    exp.Paren: (_Writer.paren, "this"),
    exp.Null: (_Writer.null, ""),
    exp.Boolean: (_Writer.boolean, "this"),
    exp.Not: (_Writer.negation, "this"),
    exp.Neg: (_Writer.negative, "this"),
    exp.BitwiseNot: (_Writer.prefixed, "this"),
    exp.Sqrt: (_Writer.prefixed, "this"),
    exp.Cbrt: (_Writer.prefixed, "this"),
    exp.Is: (_Writer.is_, "this expression negate"),
    exp.Between: (_Writer.between, "this low high"),
    exp.In: (_Writer.in_, "this expressions"),
    exp.Escape: (_Writer.escape, "this expression"),
    exp.MatchAgainst: (_Writer.text_match, "this expressions"),
    exp.Any: (_Writer.quantified, "this"),
    exp.Case: (_Writer.case, "this ifs default"),
    exp.Array: (_Writer.array, "expressions"),
    exp.Tuple: (_Writer.row, "expressions"),
    exp.JSONPath: (_Writer.json_step, "expressions"),
    exp.Bracket: (_Writer.subscript, "this expressions"),
    exp.Slice: (_Writer.slice, "this expression"),
    exp.Cast: (_Writer.cast, "this to"),
    exp.AtTimeZone: (_Writer.at_time_zone, "this zone"),
    exp.Collate: (_Writer.collate, "this expression"),
    exp.Extract: (calls.extract, "this expression"),
    exp.Substring: (calls.substring, "this start length"),
    exp.Trim: (calls.trim, "this expression position"),
    exp.StrPosition: (calls.position, "this substr"),
    exp.Overlay: (calls.overlay, "this expression from_ for_"),
    exp.Dot: (calls.qualified, "this expression"),
    exp.Filter: (calls.filtered, "this expression"),
    exp.Anonymous: (calls.call, "this expressions"),
}
"""Class of a node → the method that writes it, and the arguments of the node that it knows."""
