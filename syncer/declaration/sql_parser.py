"""Text → sqlglot's syntax tree, and what is asked of a tree first: its names, its aggregates.

sqlglot reads many dialects and normalises as it reads; a value must not change on the way. So its PostgreSQL
parser is narrowed: functions stay as they are written, subscripts keep their numbers, `interval '…'` is read
as a cast (its own reading drops what it does not know), and every string knows its own text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import Token, TokenType

from syncer.declaration.located_yaml import Path
from syncer.declaration.names import Word

_SYNTAX = {"EXTRACT", "SUBSTRING", "TRIM", "POSITION", "OVERLAY"}
"""Functions with keywords between their arguments. All others are read as plain calls."""


def _cast_call(parser: PostgresParser) -> exp.Expr:
    """`cast(x as t)`: the parentheses stay in the tree, where `x::t` has none."""
    found = parser._parse_cast(True)  # noqa: SLF001 - the parser's own hooks are all named so
    found.set("this", exp.Paren(this=found.this))
    return found


class _Dialect(Postgres):
    INDEX_OFFSET = 0

    class Parser(PostgresParser):
        FUNCTIONS = {}  # noqa: RUF012 - sqlglot's way of configuring a dialect
        LAMBDAS = {}  # noqa: RUF012 - `f(a -> b)` is JSON here
        FUNCTION_PARSERS = {  # noqa: RUF012
            "CAST": _cast_call,
            **{name: f for name, f in PostgresParser.FUNCTION_PARSERS.items() if name in _SYNTAX},
        }
        NO_PAREN_FUNCTION_PARSERS = {  # noqa: RUF012
            name: f for name, f in PostgresParser.NO_PAREN_FUNCTION_PARSERS.items() if name in ("ANY", "CASE")
        }


_DIALECT = _Dialect()
_ESCAPES = re.compile(r"[eE]'(?:[^\\]|\\[ntrbf\\'])*'", re.DOTALL)


def parse(text: str) -> exp.Expr:
    """The tree of one expression. Raises ValueError with what is wrong and where."""
    return _parse(text, exp.Condition, _tokens(text))


def parse_order(text: str) -> list[exp.Ordered]:
    """The items of an ORDER BY list, without these words. Raises ValueError."""
    tokens = _tokens(text)
    found = _parse(text, exp.Order, [*_tokens("ORDER BY"), *tokens])
    return cast(list[exp.Ordered], found.expressions)


def _parse(text: str, into: type[exp.Expr], tokens: list[Token]) -> exp.Expr:
    try:
        found = _DIALECT.parser().parse_into(into, tokens, text)
    except (SqlglotError, RecursionError) as error:
        details = getattr(error, "errors", None) or [{}]
        near = details[0].get("highlight")
        raise ValueError(f"cannot be read near {near!r}" if near else "cannot be read") from error
    if len(found) != 1 or found[0] is None:
        raise ValueError("has to be one expression")
    return found[0]


def _tokens(text: str) -> list[Token]:
    """The tokens, with `interval '…'` turned to `'…'::interval` and only strings whose text is certain."""
    try:
        tokens = _DIALECT.tokenize(text)
    except SqlglotError as error:
        raise ValueError("cannot be read: is a quote left open?") from error
    if not tokens:
        raise ValueError("is empty")
    found: list[Token] = []
    for place, token in enumerate(tokens):
        kind = token.token_type
        if "\0" in token.text or "\1" in token.text:
            raise ValueError("holds a control character")
        if kind is TokenType.SEMICOLON:
            raise ValueError("has to be one expression, without `;`")
        if kind in (TokenType.UNICODE_STRING, TokenType.NATIONAL_STRING, TokenType.HEX_STRING):
            raise ValueError(f"cannot hold {text[token.start : token.end + 1]}: write a plain '…' string")
        if kind is TokenType.BYTE_STRING and not _ESCAPES.fullmatch(text[token.start : token.end + 1]):
            raise ValueError("knows only \\n \\t \\r \\b \\f \\\\ and \\' in an E'…' string")
        if kind in (TokenType.BYTE_STRING, TokenType.HEREDOC_STRING, TokenType.RAW_STRING):
            token = _replace(token, TokenType.STRING, token.text)
        if kind is TokenType.STRING and found and found[-1].token_type is TokenType.STRING:
            raise ValueError("has two strings side by side: join them with ||")
        if kind is TokenType.INTERVAL and place + 1 < len(tokens) and _is_string(tokens[place + 1]):
            continue
        found.append(token)
        if place and tokens[place - 1].token_type is TokenType.INTERVAL and _is_string(token):
            found += [_replace(token, TokenType.DCOLON, "::"), tokens[place - 1]]
    return found


def _is_string(token: Token) -> bool:
    return token.token_type in (TokenType.STRING, TokenType.BYTE_STRING, TokenType.HEREDOC_STRING)


def _replace(token: Token, kind: TokenType, text: str) -> Token:
    return Token(kind, text, token.line, token.col, token.start, token.end)


class UnsupportedExpression(Exception):
    """An expression that cannot be used: what is wrong with it, and a hint. The caller knows the line.

    follows: from another mistake, of a relation that it names. That one is told, this one is not.
    """

    def __init__(self, what: str, hint: str = "", *, follows: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.follows = follows
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


def paths(tree: exp.Expr) -> Iterator[tuple[Word, ...]]:
    """Every dotted name in a tree."""
    if (path := path_of(tree)) is not None:
        yield path
        return
    for child in tree.iter_expressions():
        yield from paths(child)


def path_of(node: exp.Expr) -> tuple[Word, ...] | None:
    """The words of a name: a Column, in Dots if it has more than four words; None for anything else."""
    if isinstance(node, exp.Column):
        parts = [node.args.get(k) for k in ("catalog", "db", "table", "this")]
        return tuple(_word(p) for p in parts if p is not None)
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Identifier):
        around = path_of(node.this)
        return None if around is None else (*around, _word(node.expression))
    return None


def _word(node: exp.Expr) -> Word:
    if not isinstance(node, exp.Identifier):
        raise UnsupportedExpression("`*` names no column", "name each field")
    return Word(node.name, bool(node.args.get("quoted")))


def aggregate_of(name: str, node: exp.Expr, filter: exp.Expr | None) -> Aggregate:
    arguments, order, distinct = list(node.expressions), (), False
    if arguments and isinstance(arguments[-1], exp.Order):
        order = tuple(arguments[-1].expressions)
        arguments[-1:] = [arguments[-1].this]
    if arguments and isinstance(arguments[0], exp.Distinct):
        distinct = True
        arguments[:1] = arguments[0].expressions
    return Aggregate(name, tuple(arguments), distinct, order, filter)


def describe(node: exp.Expr) -> str:
    """A piece of an expression for an error message."""
    try:
        return f"`{node.sql('postgres')}`"
    except (ValueError, RecursionError):
        return f"`{type(node).__name__}`"
