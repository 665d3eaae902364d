"""Describes the database for the compiler: tables, columns, keys, indexes and replica identities.

These are plain values. `postgres/catalog.py` reads them from PostgreSQL. Tests may write them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from syncer.events import TableName

Identity = Literal["default", "full", "index", "nothing"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    """The name that `format_type` returns, without modifiers: `bigint`, `timestamp with time zone`, `public.mood`."""
    base: str
    """The type that decides how values are treated. `enum`, `array`, `range`, `multirange` or `composite` for types of
    these kinds, the base type for a domain, otherwise `type`."""
    not_null: bool
    generated_from: tuple[str, ...] = ()
    """The columns that a generated column is computed from. Empty for ordinary columns."""
    element: str = ""
    """The `type` of the elements of an array or a range."""
    element_base: str = ""
    """The `base` of the elements of an array."""
    json_cast: bool = False
    """Whether `to_json` renders the values, or the elements of an array, by a cast to json of their type. Such a cast
    can return any JSON. PostgreSQL looks for such a cast only for types that are not built in."""
    shape: str = ""
    """The type modifier of a geometry or geography, such as `Point,4326`. Empty if it has none."""
    loose_collation: bool = False
    """Whether equal texts can differ, because the collation is not deterministic."""
    collation: str = ""
    """The collation. Empty for the default one, and for types without collations."""
    has_scale: bool = False
    """Whether it is a numeric with a scale, such as numeric(6,2). Then equal values have the same text."""


@dataclass(frozen=True, slots=True)
class SortColumn:
    """A column of an order."""

    name: str
    descending: bool = False
    nulls_first: bool = False

    def reversed(self) -> SortColumn:
        return SortColumn(self.name, not self.descending, not self.nulls_first)


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    columns: tuple[str, ...]
    """The leading columns, up to the first expression."""
    unique: bool
    partial: bool
    keys: tuple[str, ...] = ()
    """Each column or expression, as PostgreSQL writes it. Empty for a hash index, which has no order."""
    order: tuple[SortColumn, ...] = ()
    """The order of its entries by these columns. Empty for a hash index, which has none."""
    unique_expression: bool = False
    """Whether it is unique over keys of which one is an expression. `unique` is False then."""
    deferrable: bool = False
    """Whether rows can have equal keys until their transaction ends."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table that contains rows and has a replica identity: the table itself, or one of its partitions."""

    oid: int
    name: TableName
    identity: Identity
    identity_columns: tuple[str, ...]
    """The columns of old rows that PostgreSQL writes to the WAL. All columns for `full`."""
    virtual: bool = False
    """Whether it has virtual generated columns (PostgreSQL 18). No publication sends them. With identity `full`, the
    application's UPDATE and DELETE fail once the table is published."""


@dataclass(frozen=True, slots=True)
class Table:
    name: TableName
    oid: int
    kind: Literal["table", "partitioned", "view", "materialized view", "foreign table", "other"]
    persistence: Literal["permanent", "unlogged", "temporary"]
    columns: Mapping[str, Column]
    """The columns in table order."""
    primary_key: tuple[str, ...]
    """The columns that identify a row: those of the primary key or, without one, of `key_index`."""
    indexes: tuple[Index, ...]
    leaves: tuple[Leaf, ...]
    element_indexes: frozenset[str] = frozenset()
    """The array columns with a GIN index that finds the rows whose array contains an element."""
    key_index: str = ""
    """The unique index that identifies a row, because the table has no primary key (`row_key.py`)."""
    inherits: bool = False
    """Whether it belongs to an inheritance tree that is not partitioning."""
    row_security: bool = False
    rows_estimate: int = 0
    can_select: bool = True


@dataclass(frozen=True, slots=True)
class Catalog:
    tables: Mapping[TableName, Table]
    enums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The labels of every enum type that a column has, by type name."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """The schema of each installed extension, by the name of the extension."""
    event_triggers: frozenset[str] = frozenset()
    """The names of the enabled event triggers. Only read if a table is partitioned."""
    others: tuple[TableName, ...] = ()
    """The other tables of the database. Only read if a requested table is missing."""
