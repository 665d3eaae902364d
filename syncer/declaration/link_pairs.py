"""Decides which two columns a pair of `on` links, and refuses pairs that cannot be linked.

A pair links columns of one type by `=`. `text_links.py` has the links of columns that differ in type, and
`array_links.py` those of an array to a column of its elements.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from syncer.declaration import array_links, text_links
from syncer.declaration.catalog import Column, Table
from syncer.declaration.names import find, nearest, quote, words
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.declaration.sql_types import EXTENSION_KEYS, INTEGERS, KEYABLE, TEXTS

_CAST = re.compile(r'(.+)::\s*([^":]+?)\s*', re.DOTALL)
_ANY = re.compile(r"any\s*\((.+)\)", re.DOTALL | re.IGNORECASE)


class Side(NamedTuple):
    """One side of a pair, as the declaration writes it."""

    column: str
    """The column, or the path to it."""
    cast: str = ""
    """The type of the cast, such as `text`. Empty without a cast."""
    elements: bool = False
    """Whether it is `any(column)`: the elements of an array."""


def side(text: str) -> Side:
    """Returns what one side of a pair names."""
    cast = ""
    if found := _CAST.fullmatch(text):
        text, cast = found[1].strip(), found[2].lower()
    if found := _ANY.fullmatch(text.strip()):
        return Side(found[1].strip(), cast, elements=True)
    return Side(text, cast)


def written(column: str, like: Side) -> str:
    """Returns a side with another column, quoted, and the same cast or `any`."""
    name = f"any({quote(column)})" if like.elements else quote(column)
    return f"{name}::{like.cast}" if like.cast else name


def linked_columns(own: str, other: str, table: Table, parent: Table, *, texts: bool = True) -> tuple[str, str]:
    """Returns the two columns of one pair of `on`.

    own, other: the sides, of the related table and of the outer row. texts: whether the link can compare texts.
    Raises UnsupportedExpression if they cannot be linked.
    """
    of_inner, of_outer = side(own), side(other)
    inner, outer = _column(of_inner.column, table), _column(of_outer.column, parent)
    one, two = f"{table.name}.{inner.name}", f"{parent.name}.{outer.name}"
    cast = of_inner.cast or of_outer.cast
    mistake = array_links.mistake(inner, of_inner.elements, outer, of_outer.elements, cast=bool(cast))
    if mistake is None and cast:
        mistake = text_links.mistake(inner, of_inner.cast, outer, of_outer.cast)
    if mistake:
        raise UnsupportedExpression(f"cannot link {one} and {two}: {mistake[0]}", mistake[1])
    if inner.collation and outer.collation and inner.collation != outer.collation:
        raise UnsupportedExpression(
            f"cannot link {one} and {two}, which have different collations",
            f"ALTER TABLE {quote(*table.name)} ALTER {quote(inner.name)} TYPE … COLLATE {outer.collation}",
        )
    compared_as_texts = cast and text_links.compares_texts(inner, outer)
    if array_links.links(inner, outer) or compared_as_texts or not (hint := _incomparable(inner, outer)):
        return inner.name, outer.name
    if hint == _OTHER_TYPE:
        hint += _same_type(table, inner, parent, outer)
        if not texts:
            hint = f"use columns of one type; or {hint}"
        elif casts := text_links.suggestion(inner, outer):
            hint = f"compare their texts: {casts}; or {hint}"
    raise UnsupportedExpression(f"cannot link {one} ({inner.type}) and {two} ({outer.type})", hint)


def _column(text: str, table: Table) -> Column:
    try:
        parts = words(text)
    except ValueError as error:
        raise UnsupportedExpression(str(error)) from error
    found = find(parts[0], table.columns) if len(parts) == 1 else None
    if found is None:
        raise UnsupportedExpression(f"{table.name} has no column {text}", nearest(text.strip('"'), table.columns))
    return found


def _incomparable(inner: Column, outer: Column) -> str:
    """Returns advice if two columns cannot be linked by a built-in `=` and an index, otherwise an empty text."""
    for column in (inner, outer):
        if column.base not in KEYABLE | EXTENSION_KEYS:
            return NOT_A_KEY
        if column.base in EXTENSION_KEYS and column.type.rpartition(".")[2] != column.base:
            return f"a domain over {column.base} cannot be a link: use {column.base} itself"
    pair = {inner.base, outer.base}
    if len(pair) == 1:
        same = inner.base != "enum" or inner.type == outer.type
        return "" if same else "use the same enum type for both columns"
    if pair <= {*INTEGERS, "numeric"} or pair <= set(TEXTS):
        return ""
    return _OTHER_TYPE


NOT_A_KEY = "use a built-in type whose values have exactly one text each, such as bigint, text or uuid"
_OTHER_TYPE = "give both columns the same type"


def _same_type(table: Table, inner: Column, parent: Table, outer: Column) -> str:
    """Returns the statement that gives both columns the same type.

    A text column gets the type of the other one, and any column that of an integer: keys are often integers.
    """
    altered, column, type = table, inner, outer.type
    if outer.base in TEXTS or (inner.base in INTEGERS and outer.base not in INTEGERS):
        altered, column, type = parent, outer, inner.type
    name = quote(column.name)
    return f": ALTER TABLE {quote(*altered.name)} ALTER {name} TYPE {type} USING {name}::{type}"
