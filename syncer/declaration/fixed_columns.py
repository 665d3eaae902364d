"""Finds the columns that a condition fixes to a constant: `owner_type = 'Company' and active` fixes `owner_type`.

Such a column is as good as a part of the link: a unique index on (owner_type, owner_id) makes `owner_id` unique, and
an index that begins with `owner_type` serves a search by `owner_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlglot import exp

from syncer.declaration.catalog import Column
from syncer.declaration.names import Word, find
from syncer.declaration.sql_parser import UnsupportedExpression, parse, path_of
from syncer.declaration.sql_types import EXACT

_TYPES = EXACT | {"numeric", "character"}


def fixed(condition: str | None, columns: Mapping[str, Column]) -> dict[str, exp.Expr]:
    """Returns the fixed columns, each with the comparison that fixes it. Empty if the condition cannot be parsed."""
    found: dict[str, exp.Expr] = {}
    for word, comparison in _comparisons(condition):
        column = find(word, columns)
        if column is not None and column.base in _TYPES:
            found.setdefault(column.name, comparison)
    return found


def only_constants(condition: str) -> str:
    """Returns the part of a condition that fixes columns, or an empty text."""
    return " AND ".join(comparison.sql("postgres") for _, comparison in _comparisons(condition))


def _comparisons(condition: str | None) -> Iterator[tuple[Word, exp.Expr]]:
    """Yields each `column = constant` that has to be true if the condition is true."""
    try:
        yield from _walk(parse(condition)) if condition else ()
    except (ValueError, UnsupportedExpression):
        return  # reported where the condition is written


def _walk(tree: exp.Expr) -> Iterator[tuple[Word, exp.Expr]]:
    if isinstance(tree, exp.Paren):
        yield from _walk(tree.this)
    elif isinstance(tree, exp.And):
        yield from _walk(tree.this)
        yield from _walk(tree.expression)
    elif isinstance(tree, exp.EQ):
        for one, other in ((tree.this, tree.expression), (tree.expression, tree.this)):
            path = path_of(one)
            if path is not None and len(path) == 1 and isinstance(other, exp.Literal | exp.Boolean):
                yield path[0], tree
