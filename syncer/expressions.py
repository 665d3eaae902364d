"""SQL expressions: judged node by node, and written anew with every name resolved. Never pasted.

Three things are certain of what comes out of here. Each node is one of the tables below, so there are no
subqueries, windows, parameters, or functions of anything but the row. Each name was resolved by `Names`. And
it means what PostgreSQL would read in the user's text: sqlglot's grammar is not PostgreSQL's to the letter, so
a tree whose operands do not all bind tighter than their operator is refused (there is only one tree in which
they do), and the user is asked for parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from sqlglot import exp

from syncer.functions import AGGREGATES, FUNCTIONS, KEYWORDS, WRONG, result_type
from syncer.lined_yaml import Path
from syncer.names import Word, literal, nearest
from syncer.sql_types import BUILTIN, Value, arithmetic, cast_target, common, concatenation

_UNARY, _SUBSCRIPT, _CAST, _ATOM = 14, 15, 16, 20
_COMPARISON, _NOT, _IS, _PATTERN, _OTHER = 5, 3, 4, 6, 8

# Class → operator, precedence (PostgreSQL manual, "Operator Precedence", and gram.y), result type.
_BINARY: dict[type[exp.Expr], tuple[str, int, str]] = {
    exp.Or: ("OR", 1, "boolean"),
    exp.And: ("AND", 2, "boolean"),
    exp.NullSafeEQ: ("IS NOT DISTINCT FROM", _IS, "boolean"),
    exp.NullSafeNEQ: ("IS DISTINCT FROM", _IS, "boolean"),
    exp.EQ: ("=", _COMPARISON, "boolean"),
    exp.NEQ: ("<>", _COMPARISON, "boolean"),
    exp.LT: ("<", _COMPARISON, "boolean"),
    exp.LTE: ("<=", _COMPARISON, "boolean"),
    exp.GT: (">", _COMPARISON, "boolean"),
    exp.GTE: (">=", _COMPARISON, "boolean"),
    exp.Like: ("LIKE", _PATTERN, "boolean"),
    exp.ILike: ("ILIKE", _PATTERN, "boolean"),
    exp.SimilarTo: ("SIMILAR TO", _PATTERN, "boolean"),
    exp.RegexpLike: ("~", _OTHER, "boolean"),
    exp.RegexpILike: ("~*", _OTHER, "boolean"),
    exp.DPipe: ("||", _OTHER, "||"),
    exp.JSONExtract: ("->", _OTHER, "jsonb"),
    exp.JSONExtractScalar: ("->>", _OTHER, "text"),
    exp.JSONBExtract: ("#>", _OTHER, "jsonb"),
    exp.JSONBExtractScalar: ("#>>", _OTHER, "text"),
    exp.JSONBDeleteAtPath: ("#-", _OTHER, "jsonb"),
    exp.JSONBPathExists: ("@?", _OTHER, "boolean"),
    exp.JSONBContainsTopKey: ("?", _OTHER, "boolean"),
    exp.JSONBContainsAnyTopKeys: ("?|", _OTHER, "boolean"),
    exp.JSONBContainsAllTopKeys: ("?&", _OTHER, "boolean"),
    exp.ArrayContainsAll: ("@>", _OTHER, "boolean"),
    exp.ArrayContainedBy: ("<@", _OTHER, "boolean"),
    exp.ArrayOverlaps: ("&&", _OTHER, "boolean"),
    exp.Adjacent: ("-|-", _OTHER, "boolean"),
    exp.StartsWith: ("^@", _OTHER, "boolean"),
    exp.BitwiseAnd: ("&", _OTHER, "=1"),
    exp.BitwiseOr: ("|", _OTHER, "=1"),
    exp.BitwiseXor: ("#", _OTHER, "=1"),
    exp.BitwiseLeftShift: ("<<", _OTHER, "?"),
    exp.BitwiseRightShift: (">>", _OTHER, "?"),
    exp.Add: ("+", 9, "+"),
    exp.Sub: ("-", 9, "-"),
    exp.Mul: ("*", 10, "*"),
    exp.Div: ("/", 10, "/"),
    exp.Mod: ("%", 10, "%"),
    exp.Pow: ("^", 11, "?"),
}
_OF_ANY_TYPE = frozenset(("first", "last", "array", "array_agg", "count"))
_NEGATABLE = (exp.Like, exp.ILike, exp.SimilarTo)
_CLOCK = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_IGNORED_ARGUMENTS = {"typed", "safe", "only_json_types", "_type"}


class Unfit(Exception):
    """An expression that cannot be used: what is wrong with it, and a hint. The caller knows the line."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.place: Path | None = None
        """Where it is declared, if not where it is used: the filter or the order of a relation."""


@dataclass(frozen=True)
class Aggregate:
    """A call such as `sum(distinct items.quantity) filter (where items.quantity > 1)`, not resolved yet."""

    name: str
    arguments: tuple[exp.Expr, ...]
    distinct: bool
    order: tuple[exp.Ordered, ...]
    filter: exp.Expr | None

    def paths(self) -> list[tuple[Word, ...]]:
        """The names in it, in reading order."""
        parts = [*self.arguments, *self.order, *([self.filter] if self.filter else [])]
        return [path for part in parts for path in paths(part)]


class Names(Protocol):
    """What the names in an expression mean, at one place of the tree."""

    def column(self, path: tuple[Word, ...]) -> Value:
        """Raises Unfit with the nearest right name."""
        ...

    def aggregate(self, call: Aggregate) -> Value:
        """Raises Unfit."""
        ...


def write(tree: exp.Expr, names: Names, enums: Mapping[str, object]) -> Value:
    """The expression in SQL, with its type as far as it is plain. Raises Unfit."""
    return _Writer(names, enums).value(tree)


def paths(tree: exp.Expr) -> Iterator[tuple[Word, ...]]:
    """Every dotted name in a tree."""
    if (path := path_of(tree)) is not None:
        yield path
        return
    for child in tree.iter_expressions():
        yield from paths(child)


def path_of(node: exp.Expr) -> tuple[Word, ...] | None:
    """The words of a name: of a Column, or of the Dots that sqlglot puts around one when a name has over four words."""
    if isinstance(node, exp.Column):
        parts = [node.args.get(k) for k in ("catalog", "db", "table", "this")]
        return tuple(_word(p) for p in parts if p is not None)
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Identifier):
        around = path_of(node.this)
        return None if around is None else (*around, _word(node.expression))
    return None


def _word(node: exp.Expr) -> Word:
    if not isinstance(node, exp.Identifier):
        raise Unfit("`*` names no column", "name each field")
    return Word(node.name, bool(node.args.get("quoted")))


def _precedence(node: exp.Expr) -> int:
    if isinstance(node, exp.Escape):
        return _PATTERN
    if type(node) in _BINARY:
        return _BINARY[type(node)][1]
    return {
        exp.Not: _NOT, exp.Is: _IS, exp.Between: _PATTERN, exp.In: _PATTERN, exp.MatchAgainst: _OTHER,
        exp.BitwiseNot: _OTHER, exp.Sqrt: _OTHER, exp.Cbrt: _OTHER, exp.AtTimeZone: 12, exp.Collate: 13,
        exp.Neg: _UNARY, exp.Bracket: _SUBSCRIPT, exp.Cast: _CAST,
    }.get(type(node), _ATOM)  # fmt: skip


class _Writer:
    def __init__(self, names: Names, enums: Mapping[str, object]) -> None:
        self._names = names
        self._enums = enums

    def value(self, node: exp.Expr) -> Value:
        found = self._any(node)
        if found.type and found.type not in BUILTIN and node.parent is not None:
            self._need_cast(node, found)
        return found

    def _any(self, node: exp.Expr) -> Value:
        if (path := path_of(node)) is not None:
            return self._names.column(path)
        if type(node) in _BINARY:
            return self._binary(node)
        if (writer := _WRITERS.get(type(node))) is None:
            raise Unfit(*_REFUSED.get(type(node), (f"cannot use {_told(node)}", "")))
        method, allowed = writer
        extra = {k for k, v in node.args.items() if v} - set(allowed.split()) - _IGNORED_ARGUMENTS
        if extra:
            raise Unfit(f"cannot use {_told(node)} in this form")
        return method(self, node)

    def _need_cast(self, node: exp.Expr, found: Value) -> None:
        """Operators and functions of extensions are outside the pinned search path: only a cast is safe."""
        around = node.parent
        while isinstance(around, exp.Paren):
            around = around.parent
        listed = isinstance(around, exp.Anonymous) and str(around.this).lower() in _OF_ANY_TYPE
        if not listed and not isinstance(around, exp.Cast | exp.Is | exp.Ordered | exp.Distinct | None):
            raise Unfit(
                f"{_told(node)} is of the type {found.type}, whose operators are not PostgreSQL's own",
                f"cast it: {_told(node)}::text",
            )

    def _operand(self, node: exp.Expr, least: int, around: exp.Expr) -> Value:
        """An operand, if PostgreSQL would take it for one too."""
        if _precedence(node) < least:
            raise Unfit(f"{_told(around)} can be read in two ways", f"put parentheses around {_told(node)}")
        return self.value(node)

    def _binary(self, node: exp.Expr) -> Value:
        operator, precedence, result = _BINARY[type(node)]
        left_least = precedence if precedence in (1, 2, _OTHER, 9, 10, 11) else precedence + 1
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

    def _literal(self, node: exp.Expr) -> Value:
        text = str(node.this)
        if node.args.get("is_string"):
            if _CLOCK.search(text) and not _cast_to_text(node) and len(text) < 64:
                raise Unfit(
                    f"{literal(text)} may be read as a time that depends on the clock",
                    f"if it is a text: {literal(text)}::text",
                )
            return Value(literal(text), "literal")
        if not _NUMBER.fullmatch(text):
            raise Unfit(f"{text!r} is not a number that PostgreSQL reads")
        return Value(text, "numeric" if not text.isdigit() or int(text) >= 1 << 63 else _integer(text))

    def _paren(self, node: exp.Expr) -> Value:
        return self.value(node.this)

    def _null(self, node: exp.Expr) -> Value:
        return Value("NULL", "null")

    def _boolean(self, node: exp.Expr) -> Value:
        return Value("true" if node.this else "false", "boolean")

    def _not(self, node: exp.Expr) -> Value:
        return Value(f"(NOT {self._operand(node.this, _NOT, node).sql})", "boolean")

    def _negative(self, node: exp.Expr) -> Value:
        operand = self._operand(node.this, _UNARY, node)
        return Value(f"(- {operand.sql})", operand.type)

    def _prefixed(self, node: exp.Expr) -> Value:
        operator = {exp.BitwiseNot: "~", exp.Sqrt: "|/", exp.Cbrt: "||/"}[type(node)]
        return Value(f"({operator} {self._operand(node.this, _OTHER, node).sql})")

    def _is(self, node: exp.Expr) -> Value:
        right = node.expression
        if not isinstance(right, exp.Null | exp.Boolean):
            raise Unfit(f"cannot use {_told(node)}")
        negated = "NOT " if node.args.get("negate") else ""
        left = self._operand(node.this, _IS + 1, node)
        return Value(f"({left.sql} IS {negated}{self.value(right).sql})", "boolean")

    def _between(self, node: exp.Expr) -> Value:
        parts = [self._operand(node.args[k], _PATTERN + 1, node).sql for k in ("this", "low", "high")]
        return Value("({} BETWEEN {} AND {})".format(*parts), "boolean")

    def _in(self, node: exp.Expr) -> Value:
        if not node.expressions:
            raise Unfit("`in` needs a list of values")
        options = ", ".join(self.value(e).sql for e in node.expressions)
        return Value(f"({self._operand(node.this, _PATTERN + 1, node).sql} IN ({options}))", "boolean")

    def _escape(self, node: exp.Expr) -> Value:
        pattern = self.value(node.this).sql
        return Value(f"({pattern[1:-1]} ESCAPE {self._operand(node.expression, 7, node).sql})", "boolean")

    def _text_match(self, node: exp.Expr) -> Value:
        if len(node.expressions) != 1:
            raise Unfit(f"cannot use {_told(node)}")
        left = self._operand(node.expressions[0], _OTHER, node)
        return Value(f"({left.sql} @@ {self._operand(node.this, _OTHER + 1, node).sql})", "boolean")

    def _quantified(self, node: exp.Expr) -> Value:
        return Value(f"ANY ({self.value(node.this).sql})")

    def _case(self, node: exp.Expr) -> Value:
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

    def _array(self, node: exp.Expr) -> Value:
        items = [self.value(e) for e in node.expressions]
        return Value(f"ARRAY[{', '.join(i.sql for i in items)}]", "array", common(items)[0])

    def _tuple(self, node: exp.Expr) -> Value:
        return Value(f"ROW({', '.join(self.value(e).sql for e in node.expressions)})", "composite")

    def _json_step(self, node: exp.Expr) -> Value:
        """sqlglot turns the constant after `->` into a path of one step; this turns it back."""
        steps = node.expressions[1:]
        if len(steps) == 1 and isinstance(steps[0], exp.JSONPathKey) and isinstance(steps[0].this, str):
            return Value(literal(steps[0].this), "literal")
        if len(steps) == 1 and isinstance(steps[0], exp.JSONPathSubscript) and isinstance(steps[0].this, int):
            return Value(str(steps[0].this), "integer")
        raise Unfit("cannot use this key after `->`", "put it in parentheses")

    def _subscript(self, node: exp.Expr) -> Value:
        if isinstance(node.this, exp.Cast):
            raise Unfit(f"{_told(node)} can be read in two ways", f"write ({_told(node.this)})[…]")
        base = self._operand(node.this, _SUBSCRIPT, node)
        sliced = any(isinstance(e, exp.Slice) for e in node.expressions)
        sql = f"({base.sql})[{', '.join(self.value(e).sql for e in node.expressions)}]"
        if sliced or base.type != "array":
            return Value(sql, base.type, base.element)
        return Value(sql, base.element)

    def _slice(self, node: exp.Expr) -> Value:
        return Value(":".join(self.value(e).sql if e else "" for e in (node.this, node.expression)))

    def _cast(self, node: exp.Expr) -> Value:
        operand = self._operand(node.this, _CAST, node)
        try:
            target = cast_target(node.args["to"], self._enums)
        except ValueError as error:
            raise Unfit(str(error.args[0]), error.args[1] if len(error.args) > 1 else "") from error
        return Value(f"({operand.sql}::{target.sql})", target.type, target.element)

    def _at_time_zone(self, node: exp.Expr) -> Value:
        operand = self._operand(node.this, 12, node)
        zone = self._operand(node.args["zone"], 13, node)
        flipped = {
            "timestamp with time zone": "timestamp without time zone",
            "timestamp without time zone": "timestamp with time zone",
        }
        return Value(f"({operand.sql} AT TIME ZONE {zone.sql})", flipped.get(operand.type, ""))

    def _collate(self, node: exp.Expr) -> Value:
        name = node.expression
        if not isinstance(name, exp.Identifier) or name.name not in ("C", "POSIX", "ucs_basic"):
            raise Unfit('only the collations "C" and "POSIX" can be named', 'write COLLATE "C"')
        operand = self._operand(node.this, 13, node)
        return Value(f'({operand.sql} COLLATE pg_catalog."{name.name}")', operand.type)

    def _extract(self, node: exp.Expr) -> Value:
        field = str(node.this.this)
        if not re.fullmatch(r"\w+", field):
            raise Unfit(f"{field!r} is not a field of a time")
        return Value(f"extract({field} FROM {self.value(node.expression).sql})", "numeric")

    def _substring(self, node: exp.Expr) -> Value:
        parts = [self.value(node.args[k]) for k in ("this", "start", "length") if node.args.get(k)]
        return Value(f"pg_catalog.substring({', '.join(p.sql for p in parts)})", common(parts[:1])[0])

    def _trim(self, node: exp.Expr) -> Value:
        name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or ""), "btrim")
        parts = [self.value(node.args[k]).sql for k in ("this", "expression") if node.args.get(k)]
        return Value(f"pg_catalog.{name}({', '.join(parts)})", "text")

    def _position(self, node: exp.Expr) -> Value:
        inner, outer = self.value(node.args["substr"]), self.value(node.this)
        return Value(f"pg_catalog.position({outer.sql}, {inner.sql})", "integer")

    def _overlay(self, node: exp.Expr) -> Value:
        keys = ("this", "expression", "from_", "for_")
        parts = [self.value(node.args[k]).sql for k in keys if node.args.get(k)]
        return Value(f"pg_catalog.overlay({', '.join(parts)})", "text")

    def _qualified(self, node: exp.Expr) -> Value:
        """`pg_catalog.lower(x)`; other Dots are paths, or fields of composite values."""
        call = node.expression
        if isinstance(call, exp.Anonymous) and isinstance(node.this, exp.Identifier):
            if node.this.name.lower() == "pg_catalog":
                return self._call(call)
            raise Unfit(f"{node.this.name}.{call.name} is not a function of PostgreSQL itself")
        raise Unfit("cannot use a field of a composite value")

    def _filter(self, node: exp.Expr) -> Value:
        if not isinstance(node.this, exp.Anonymous):
            raise Unfit("FILTER belongs to an aggregate")
        return self._call(node.this, node.expression.this)

    def _call(self, node: exp.Expr, filter: exp.Expr | None = None) -> Value:
        name = node.name if isinstance(node.this, exp.Identifier) else str(node.this).lower()
        if name in AGGREGATES:
            return self._names.aggregate(_aggregate(name, node, filter))
        if filter is not None:
            raise Unfit(f"FILTER belongs to an aggregate, and {name}() is none")
        if name in ("all", "some") and len(node.expressions) == 1:
            return Value(f"{'ALL' if name == 'all' else 'ANY'} ({self.value(node.expressions[0]).sql})")
        if name not in FUNCTIONS and name not in KEYWORDS:
            hint = WRONG.get(name) or nearest(name, sorted(FUNCTIONS.keys() | AGGREGATES))
            raise Unfit(f"{name}() is not among the functions that an expression can use", hint)
        if name == "age" and len(node.expressions) != 2:
            raise Unfit("age() of one time depends on the clock", "use age(later, earlier)")
        arguments = [self.value(e) for e in node.expressions]
        sql = f"{name if name in KEYWORDS else 'pg_catalog.' + name}({', '.join(a.sql for a in arguments)})"
        if name in ("coalesce", "nullif", "greatest", "least"):
            return Value(sql, *common(arguments[:1] if name == "nullif" else arguments))
        return Value(sql, "composite" if name == "row" else result_type(name, [a.type for a in arguments]))


def _aggregate(name: str, node: exp.Expr, filter: exp.Expr | None) -> Aggregate:
    arguments, order, distinct = list(node.expressions), (), False
    if arguments and isinstance(arguments[-1], exp.Order):
        order = tuple(arguments[-1].expressions)
        arguments[-1:] = [arguments[-1].this]
    if arguments and isinstance(arguments[0], exp.Distinct):
        distinct = True
        arguments[:1] = arguments[0].expressions
    return Aggregate(name, tuple(arguments), distinct, order, filter)


def _cast_to_text(node: exp.Expr) -> bool:
    around = node.parent
    kind = around.args["to"].this if isinstance(around, exp.Cast) else None
    return kind in (exp.DType.TEXT, exp.DType.VARCHAR)


def _integer(text: str) -> str:
    return "integer" if int(text) < 1 << 31 else "bigint"


def _told(node: exp.Expr) -> str:
    """A piece of an expression for an error message."""
    try:
        return f"`{node.sql('postgres')}`"
    except (ValueError, RecursionError):
        return f"`{type(node).__name__}`"


_Method = Callable[[_Writer, exp.Expr], Value]
_W = _Writer
_WRITERS: dict[type[exp.Expr], tuple[_Method, str]] = {
    exp.Literal: (_W._literal, "this is_string"),
    exp.Paren: (_W._paren, "this"),
    exp.Null: (_W._null, ""),
    exp.Boolean: (_W._boolean, "this"),
    exp.Not: (_W._not, "this"),
    exp.Neg: (_W._negative, "this"),
    exp.BitwiseNot: (_W._prefixed, "this"),
    exp.Sqrt: (_W._prefixed, "this"),
    exp.Cbrt: (_W._prefixed, "this"),
    exp.Is: (_W._is, "this expression negate"),
    exp.Between: (_W._between, "this low high"),
    exp.In: (_W._in, "this expressions"),
    exp.Escape: (_W._escape, "this expression"),
    exp.MatchAgainst: (_W._text_match, "this expressions"),
    exp.Any: (_W._quantified, "this"),
    exp.Case: (_W._case, "this ifs default"),
    exp.Array: (_W._array, "expressions"),
    exp.Tuple: (_W._tuple, "expressions"),
    exp.JSONPath: (_W._json_step, "expressions"),
    exp.Bracket: (_W._subscript, "this expressions"),
    exp.Slice: (_W._slice, "this expression"),
    exp.Cast: (_W._cast, "this to"),
    exp.AtTimeZone: (_W._at_time_zone, "this zone"),
    exp.Collate: (_W._collate, "this expression"),
    exp.Extract: (_W._extract, "this expression"),
    exp.Substring: (_W._substring, "this start length"),
    exp.Trim: (_W._trim, "this expression position"),
    exp.StrPosition: (_W._position, "this substr"),
    exp.Overlay: (_W._overlay, "this expression from_ for_"),
    exp.Dot: (_W._qualified, "this expression"),
    exp.Filter: (_W._filter, "this expression"),
    exp.Anonymous: (_W._call, "this expressions"),
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
