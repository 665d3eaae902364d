"""What a compiled read model is: plain values, which the stages and the edges work with.

`compile.py` makes them. SQL parameters are text arrays, one per key column, cast inside the statement, so
that a key travels as the text that PostgreSQL gave or will accept.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncer.events import TableName


@dataclass(frozen=True, slots=True)
class Lookup:
    """From a row of one table to the roots whose documents show it."""

    columns: tuple[str, ...]
    """The changed row's columns whose values are looked up: its side of the link to its parent."""
    types: tuple[str, ...]
    """The families of their types (`sql_types.family`), in which events encode the values."""
    sql: str | None
    """Takes one text[] per column (`%s` placeholders); returns the distinct root keys, one text column per
    key column. None: the values are root keys themselves, in key order."""


@dataclass(frozen=True, slots=True)
class TableUse:
    """One table at one place in the tree. A table that is used twice occurs twice."""

    path: str
    """Dotted names of the relations from the root, `items.product`; empty for the root."""
    table: TableName
    lookup: Lookup | None
    """None for the root itself: its key is the root's key."""
    used: frozenset[str]
    """Columns whose values can change a document (filters, order, links and keys too), generated columns
    traced to their inputs. A change to no other column needs no render."""
    comparable: frozenset[str]
    """Those of `used` whose two images can be compared for certain (lossless types, identity FULL on every
    leaf). If `used` is not within it, every change counts."""
    parent: TableName | None = None
    """The table that it is linked to; None for the root."""
    parent_columns: tuple[str, ...] = ()
    """The parent's side of the link, which is searched when a row of this table changes."""
    needs_before: bool = False
    """Whether an update without its before-image is one that was logged under a weaker replica identity, and
    may hide the root that the row left: the link is no part of the primary key, and the identity is FULL on
    every leaf. (Under an index, the image is left out if none of its columns changed.)"""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the document, for deriving mappings and judging given ones."""

    name: str
    type: str
    """A `Column.base`-like type of one value; `object` when it has `fields`; `unknown` where SQL decides."""
    many: bool
    """Whether the value is a list."""
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A read model, ready to run. Every statement pins nothing: `postgres/session.py` pins the session."""

    name: str
    root: TableName
    key: tuple[str, ...]
    """Primary-key columns of the root."""
    key_types: tuple[str, ...]
    """The families of their types."""
    occurrences: tuple[TableUse, ...]
    """Parents before children, the root first."""
    fields: tuple[Field, ...]
    render: str
    """One text[] per key column → one row per key asked for: (asked id, row's id or NULL, document or NULL).
    Both ids as `document_id` makes them, from the columns' text."""
    render_between: str
    """Low key, then high key, one text value a column → the same rows for low < key <= high."""
    render_upto: str
    """High key → the same rows for key <= high."""
    boundaries: str
    """%s rows a range → the key (text columns) of every so many-th row in key order, and of the last row."""
    hash: str
    """Changes when documents have to be built again: declaration, root key, renderer version."""

    @property
    def tables(self) -> frozenset[TableName]:
        return frozenset(o.table for o in self.occurrences)
