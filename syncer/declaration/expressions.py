"""SQL expressions: judged node by node, and written anew with every name resolved. Never pasted.

Three things are certain of what comes out of here. Each node is one of the tables below, so there are no
subqueries, windows, parameters, or functions of anything but the row. Each name was resolved by `Names`. And
it means what PostgreSQL would read in the user's text: sqlglot's grammar is not PostgreSQL's to the letter,
so a tree whose operands do not all bind tighter than their operator is refused (there is only one tree in
which they do), and the user is asked for parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from sqlglot import exp

from syncer.declaration import extensions
from syncer.declaration.catalog import Catalog
from syncer.declaration.functions import (
    AGGREGATES,
    BINARY,
    CAST,
    FUNCTIONS,
    IS,
    KEYWORDS,
    NOT,
    NOT_BUILT_IN,
    OTHER,
    PATTERN,
    SUBSCRIPT,
    UNARY,
    WRONG,
    precedence,
    result_type,
)
from syncer.declaration.names import Word, literal, near
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, aggregate_of, describe, path_of
from syncer.declaration.sql_types import BUILTIN, TEXTS, Value, arithmetic, cast_target, common, concatenation

_OF_ANY_TYPE = frozenset(("first", "last", "array", "array_agg", "count", "coalesce"))
_NEGATABLE = (exp.Like, exp.ILike, exp.SimilarTo)
_CLOCK = frozenset(("now", "today", "tomorrow", "yesterday"))
_IN_TIMES = re.compile(r"now|today|tomorrow|yesterday|on|am|pm|ad|bc|z|zulu|utc|msk|dst|[a-z]{1,4}t|[a-z_]+/[a-z_/]+")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_IGNORED_ARGUMENTS = {"typed", "safe", "only_json_types", "_type"}


class Names(Protocol):
    """What the names in an expression mean, at one place of the tree."""

    def column(self, path: tuple[Word, ...]) -> Value:
        """Raises Unfit with the nearest right name."""
        ...

    def aggregate(self, call: Aggregate) -> Value:
        """Raises Unfit."""
        ...


def write(tree: exp.Expr, names: Names, catalog: Catalog) -> Value:
    """The expression in SQL, with its type as far as it is plain. Raises Unfit."""
    return _Writer(names, catalog).value(tree)


class _Writer:
    def __init__(self, names: Names, catalog: Catalog) -> None:
        self._names = names
        self._catalog = catalog

    def value(self, node: exp.Expr) -> Value:
        found = self._any(node)
        if found.type and found.type not in BUILTIN and node.parent is not None:
            self._need_cast(node, found)
        return found

    def _any(self, node: exp.Expr) -> Value:
        if (path := path_of(node)) is not None:
            return self._names.column(path)
        if type(node) in BINARY:
            return self._binary(node)
        if (writer := _WRITERS.get(type(node))) is None:
            raise UnsupportedExpression(*_REFUSED.get(type(node), (f"cannot use {describe(node)}", "")))
        method, allowed = writer
        extra = {k for k, v in node.args.items() if v} - set(allowed.split()) - _IGNORED_ARGUMENTS
        if extra:
            raise UnsupportedExpression(f"cannot use {describe(node)} in this form")
        return method(self, node)

    def _need_cast(self, node: exp.Expr, found: Value) -> None:
        """Operators and functions of extensions are outside the pinned search path: only a cast is safe."""
        operand, around = node, node.parent
        while isinstance(around, exp.Paren):
            operand, around = around, around.parent
        if isinstance(around, exp.Anonymous):
            name = str(around.this).lower()
            if name in _OF_ANY_TYPE or name in extensions.FUNCTIONS:
                return
        if isinstance(around, exp.If | exp.Case) and operand.arg_key in ("true", "default"):
            return
        if not isinstance(around, exp.Cast | exp.Is | exp.Ordered | exp.Distinct | None):
            raise UnsupportedExpression(
                f"{describe(node)} is of the type {found.type}, whose operators are not PostgreSQL's own",
                extensions.instead(describe(node).strip("`"), found.type),
            )

    def _operand(self, node: exp.Expr, least: int, around: exp.Expr) -> Value:
        """An operand, if PostgreSQL would take it for one too."""
        if precedence(node) < least:
            raise UnsupportedExpression(
                f"{describe(around)} can be read in two ways", f"put parentheses around {describe(node)}"
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
                    f"{literal(text)} may be read as a time that depends on the clock",
                    f"if it is a text: {literal(text)}::text",
                )
            return Value(literal(text), "literal")
        if not _NUMBER.fullmatch(text):
            raise UnsupportedExpression(f"{text!r} is not a number that PostgreSQL reads")
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
            raise UnsupportedExpression(f"cannot use {describe(node)}")
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
            raise UnsupportedExpression(f"cannot use {describe(node)}")
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
        """sqlglot turns the constant after `->` into a path of one step; this turns it back."""
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
        if (found := extensions.cast(operand, node.args["to"], self._catalog.extensions)) is not None:
            return found
        try:
            target = cast_target(node.args["to"], self._catalog.enums)
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
            raise UnsupportedExpression('only the collations "C" and "POSIX" can be named', 'write COLLATE "C"')
        operand = self._operand(node.this, 13, node)
        return Value(f'({operand.sql} COLLATE pg_catalog."{name.name}")', operand.type)

    def extract(self, node: exp.Expr) -> Value:
        field = str(node.this.this)
        if not re.fullmatch(r"\w+", field):
            raise UnsupportedExpression(f"{field!r} is not a field of a time")
        return Value(f"extract({field} FROM {self.value(node.expression).sql})", "numeric")

    def substring(self, node: exp.Expr) -> Value:
        parts = [self.value(node.args[k]) for k in ("this", "start", "length") if node.args.get(k)]
        kind = "text" if parts[0].type in (*TEXTS, "literal") else ""
        return Value(f"pg_catalog.substring({', '.join(p.sql for p in parts)})", kind)

    def trim(self, node: exp.Expr) -> Value:
        name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or ""), "btrim")
        parts = [self.value(node.args[k]).sql for k in ("this", "expression") if node.args.get(k)]
        return Value(f"pg_catalog.{name}({', '.join(parts)})", "text")

    def position(self, node: exp.Expr) -> Value:
        inner, outer = self.value(node.args["substr"]), self.value(node.this)
        return Value(f"pg_catalog.position({outer.sql}, {inner.sql})", "integer")

    def overlay(self, node: exp.Expr) -> Value:
        keys = ("this", "expression", "from_", "for_")
        parts = [self.value(node.args[k]).sql for k in keys if node.args.get(k)]
        return Value(f"pg_catalog.overlay({', '.join(parts)})", "text")

    def qualified(self, node: exp.Expr) -> Value:
        """`pg_catalog.lower(x)`; other Dots are paths, or fields of composite values."""
        call = node.expression
        if isinstance(call, exp.Anonymous) and isinstance(node.this, exp.Identifier):
            schema = node.this.name if node.this.args.get("quoted") else node.this.name.lower()
            if schema == "pg_catalog" and call.name.lower() not in extensions.FUNCTIONS:
                return self.call(call)
            if call.name.lower() in extensions.FUNCTIONS and schema == self._catalog.extensions.get("postgis"):
                return self.call(call)
            raise UnsupportedExpression(f"{node.this.name}.{call.name} is not a function of PostgreSQL itself")
        raise UnsupportedExpression("cannot use a field of a composite value")

    def filtered(self, node: exp.Expr) -> Value:
        if not isinstance(node.this, exp.Anonymous):
            raise UnsupportedExpression("FILTER belongs to an aggregate")
        return self.call(node.this, node.expression.this)

    def call(self, node: exp.Expr, filter: exp.Expr | None = None) -> Value:
        name = node.name if isinstance(node.this, exp.Identifier) else str(node.this).lower()
        if name in AGGREGATES:
            return self._names.aggregate(aggregate_of(name, node, filter))
        if filter is not None:
            raise UnsupportedExpression(f"FILTER belongs to an aggregate, and {name}() is none")
        if name in ("all", "some") and len(node.expressions) == 1:
            return Value(f"{'ALL' if name == 'all' else 'ANY'} ({self.value(node.expressions[0]).sql})")
        if name in extensions.FUNCTIONS:
            given = [self.value(e) for e in node.expressions]
            return extensions.call(name, given, self._catalog.extensions)
        if name not in FUNCTIONS and name not in KEYWORDS:
            meant = near(name, sorted(FUNCTIONS.keys() | AGGREGATES))
            hint = WRONG.get(name) or (f"did you mean {meant!r}?" if meant else NOT_BUILT_IN.format(name))
            raise UnsupportedExpression(f"{name}() is not among the functions that an expression can use", hint)
        if name == "age" and len(node.expressions) != 2:
            raise UnsupportedExpression("age() of one time depends on the clock", "use age(later, earlier)")
        arguments = [self.value(e) for e in node.expressions]
        sql = f"{name if name in KEYWORDS else 'pg_catalog.' + name}({', '.join(a.sql for a in arguments)})"
        if name in ("coalesce", "nullif", "greatest", "least"):
            return Value(sql, *common(arguments[:1] if name == "nullif" else arguments))
        return Value(sql, "composite" if name == "row" else result_type(name, [a.type for a in arguments]))


def _depends_on_clock(text: str) -> bool:
    """Whether PostgreSQL would read the text as a time such as `now` or `today 10:00 CET`, if asked to."""
    words = re.findall(r"[a-z_/]+", text.lower())
    return not _CLOCK.isdisjoint(words) and all(map(_IN_TIMES.fullmatch, words))


def _cast_to_text(node: exp.Expr) -> bool:
    around = node.parent
    kind = around.args["to"].this if isinstance(around, exp.Cast) else None
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
    exp.Extract: (_Writer.extract, "this expression"),
    exp.Substring: (_Writer.substring, "this start length"),
    exp.Trim: (_Writer.trim, "this expression position"),
    exp.StrPosition: (_Writer.position, "this substr"),
    exp.Overlay: (_Writer.overlay, "this expression from_ for_"),
    exp.Dot: (_Writer.qualified, "this expression"),
    exp.Filter: (_Writer.filtered, "this expression"),
    exp.Anonymous: (_Writer.call, "this expressions"),
}
_NOW = "a document is a function of the rows alone; compare times where the document is read"
_REFUSED: dict[type[exp.Expr], tuple[str, str]] = {
    exp.Subquery: ("cannot use a subquery", "declare a relation"),
    exp.Select: ("cannot use a subquery", "declare a relation"),
    exp.Exists: ("cannot use a subquery", "declare a relation and use count(relation) > 0"),
    exp.Window: ("cannot use a window function", "an aggregate over a relation may do"),
    exp.Placeholder: ("cannot use a parameter", "write the value"),
    exp.Parameter: ("cannot use a parameter", "write the value"),
    exp.CurrentDate: ("cannot use current_date", _NOW),
    exp.CurrentTime: ("cannot use current_time", _NOW),
    exp.CurrentTimestamp: ("cannot use current_timestamp", _NOW),
    exp.Localtime: ("cannot use localtime", _NOW),
    exp.Localtimestamp: ("cannot use localtimestamp", _NOW),
    exp.CurrentUser: ("cannot use current_user", "a document is a function of the rows alone"),
    exp.SessionUser: ("cannot use session_user", "a document is a function of the rows alone"),
    exp.CurrentSchema: ("cannot use current_schema", "a document is a function of the rows alone"),
    exp.CurrentCatalog: ("cannot use current_catalog", "a document is a function of the rows alone"),
}
