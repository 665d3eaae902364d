"""Parses an expression into sqlglot's syntax tree, and finds the names and aggregates in a tree.

sqlglot reads many dialects and normalizes the text while it reads. Values must not change in the process. Therefore
its PostgreSQL parser is restricted here:

* functions stay as they are written;
* subscripts keep their numbers;
* `interval '…'` is parsed as a cast, because sqlglot's own parser drops parts that it does not know;
* a string is refused if its value is not certain.
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
"""Functions with keywords between their arguments. All others are parsed as plain calls."""


def _cast_call(parser: PostgresParser) -> exp.Expr:
    """Parses `cast(x as t)`. The tree keeps the parentheses, which distinguish it from `x::t`."""
    found = parser._parse_cast(True)  # noqa: SLF001 - all hooks of the parser have such names
    found.set("this", exp.Paren(this=found.this))
    return found


class _Dialect(Postgres):
    INDEX_OFFSET = 0

    class Parser(PostgresParser):
        FUNCTIONS = {}  # noqa: RUF012 - sqlglot configures dialects this way
        LAMBDAS = {}  # noqa: RUF012 - `f(a -> b)` is JSON here
        FUNCTION_PARSERS = {  # noqa: RUF012
            "CAST": _cast_call,
            **{name: f for name, f in PostgresParser.FUNCTION_PARSERS.items() if name in _SYNTAX},
        }
        NO_PAREN_FUNCTION_PARSERS = {  # noqa: RUF012
            name: f for name, f in PostgresParser.NO_PAREN_FUNCTION_PARSERS.items() if name in ("ANY", "CASE")
        }


_DIALECT = _Dialect()
_WORDS = re.compile(r"[^\W\d][\w .,:;!?-]* [\w .,:;!?-]*\w[.!?]?")
"""Texts of several words, without operators, calls and quotes: somebody means a constant."""
_KEYWORDS = frozenset(
    "and or not is in as between like case when then else end select from where distinct desc asc limit null".split()
)
_ESCAPES = re.compile(r"[eE]'(?:[^\\]|\\[ntrbf\\'])*'", re.DOTALL)


def parse(text: str) -> exp.Expr:
    """Returns the tree of one expression. Raises ValueError with the mistake and its position."""
    return _parse(text, exp.Condition, _tokens(text))


def parse_order(text: str) -> list[exp.Ordered]:
    """Returns the items of an ORDER BY list. The text does not contain these words. Raises ValueError."""
    tokens = _tokens(text)
    found = _parse(text, exp.Order, [*_tokens("ORDER BY"), *tokens])
    return cast(list[exp.Ordered], found.expressions)


def syntax_hint(text: str) -> str:
    """Returns a hint for a text that `parse` refused."""
    if _WORDS.fullmatch(text.strip()) and not _KEYWORDS & {*text.lower().split()}:
        return f"""a constant needs SQL quotes inside the YAML quotes: "'{text.strip()}'\""""
    return "write one SQL expression; docs/read-models.md lists what it can use"


def _parse(text: str, into: type[exp.Expr], tokens: list[Token]) -> exp.Expr:
    try:
        found = _DIALECT.parser().parse_into(into, tokens, text)
    except (SqlglotError, RecursionError) as error:
        details = getattr(error, "errors", None) or [{}]
        near = details[0].get("highlight")
        raise ValueError(f"has a syntax error near {near!r}" if near else "has a syntax error") from error
    if len(found) != 1 or found[0] is None:
        raise ValueError("has to be one expression")
    return found[0]


def _tokens(text: str) -> list[Token]:
    """Returns the tokens, with `interval '…'` replaced by `'…'::interval`.

    Raises ValueError, among others for a string whose value is not certain.
    """
    try:
        tokens = _DIALECT.tokenize(text)
    except SqlglotError as error:
        raise ValueError("has a syntax error: is a quote not closed?") from error
    if not tokens:
        raise ValueError("is empty")
    found: list[Token] = []
    for position, token in enumerate(tokens):
        kind = token.token_type
        if "\0" in token.text or "\1" in token.text:
            raise ValueError("contains a control character")
        if kind is TokenType.SEMICOLON:
            raise ValueError("has to be one expression, without `;`")
        if kind in (TokenType.UNICODE_STRING, TokenType.NATIONAL_STRING, TokenType.HEX_STRING):
            raise ValueError(f"contains {text[token.start : token.end + 1]}: write a plain '…' string")
        if kind is TokenType.BYTE_STRING and not _ESCAPES.fullmatch(text[token.start : token.end + 1]):
            raise ValueError("allows only \\n \\t \\r \\b \\f \\\\ and \\' in an E'…' string")
        if kind in (TokenType.BYTE_STRING, TokenType.HEREDOC_STRING, TokenType.RAW_STRING):
            token = _replace(token, TokenType.STRING, token.text)
        if kind is TokenType.STRING and found and found[-1].token_type is TokenType.STRING:
            raise ValueError("has two adjacent strings: join them with ||")
        if kind is TokenType.INTERVAL and position + 1 < len(tokens) and _is_string(tokens[position + 1]):
            continue
        found.append(token)
        if position and tokens[position - 1].token_type is TokenType.INTERVAL and _is_string(token):
            found += [_replace(token, TokenType.DCOLON, "::"), tokens[position - 1]]
    return found


def _is_string(token: Token) -> bool:
    return token.token_type in (TokenType.STRING, TokenType.BYTE_STRING, TokenType.HEREDOC_STRING)


def _replace(token: Token, kind: TokenType, text: str) -> Token:
    return Token(kind, text, token.line, token.col, token.start, token.end)


class UnsupportedExpression(Exception):
    """An expression that cannot be used, with the reason and a hint. The caller adds the line.

    follows: the error is a consequence of another mistake, in a relation that the expression names. Only that other
    mistake is reported.
    """

    def __init__(self, what: str, hint: str = "", *, follows: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.follows = follows
        self.place: Path | None = None
        """The path in the YAML of the filter or order of a relation, if the expression is one. Otherwise None."""


@dataclass(frozen=True)
class Aggregate:
    """A call such as `sum(distinct items.quantity) filter (where items.quantity > 1)`. Its names are not resolved."""

    name: str
    arguments: tuple[exp.Expr, ...]
    distinct: bool
    order: tuple[exp.Ordered, ...]
    filter: exp.Expr | None

    def paths(self) -> list[tuple[Word, ...]]:
        """Returns the names in the call, from left to right."""
        parts = [*self.arguments, *self.order, *([self.filter] if self.filter else [])]
        return [path for part in parts for path in paths(part)]


def paths(tree: exp.Expr) -> Iterator[tuple[Word, ...]]:
    """Yields every dotted name in a tree."""
    if (path := path_of(tree)) is not None:
        yield path
        return
    for child in tree.iter_expressions():
        yield from paths(child)


def path_of(node: exp.Expr) -> tuple[Word, ...] | None:
    """Returns the words of a name, or None if the node is not a name.

    sqlglot parses a name as a Column, and as a Column inside of Dots if it has more than four words.
    """
    if isinstance(node, exp.Column):
        parts = [node.args.get(k) for k in ("catalog", "db", "table", "this")]
        return tuple(_word(p) for p in parts if p is not None)
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Identifier):
        first = path_of(node.this)
        return None if first is None else (*first, _word(node.expression))
    return None


def _word(node: exp.Expr) -> Word:
    if not isinstance(node, exp.Identifier):
        raise UnsupportedExpression("`*` is not a column", "name each column")
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
    """Returns a part of an expression for an error message."""
    return f"`{shown(node)}`"


def shown(node: exp.Expr) -> str:
    """Returns a part of an expression as text."""
    try:
        return node.sql("postgres")
    except (ValueError, RecursionError):
        return type(node).__name__
