"""Text → sqlglot's syntax tree, for expressions and ORDER BY lists. Nothing is resolved or allowed here.

sqlglot reads many dialects and normalises as it reads; a value must not change on the way. So its PostgreSQL
parser is narrowed: functions stay as they are written, subscripts keep their numbers, `interval '…'` is read
as a cast (its own reading drops what it does not know), and every string knows its own text.
"""

from __future__ import annotations

import re
from typing import cast

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import Token, TokenType

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
        if "\0" in token.text:
            raise ValueError("holds a NUL character")
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
