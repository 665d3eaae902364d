"""What the declaration layer knows of the database: tables, columns, keys, indexes, identities.

Values only. `postgres/catalog.py` reads them from PostgreSQL; tests may write them down by hand.
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
    """As `format_type` says it, without modifiers: `bigint`, `timestamp with time zone`, `public.mood`."""
    base: str
    """The type to judge by: an enum is `enum`, a domain its base type, an array `array`, a range `range`,
    a multirange `multirange`, a composite `composite`; otherwise `type`."""
    not_null: bool
    generated_from: tuple[str, ...] = ()
    """The columns that a generated column is computed from; empty for ordinary ones."""
    element: str = ""
    """For an array or a range: the `type` of its elements."""
    element_base: str = ""
    """For an array: the `base` of its elements."""
    json_cast: bool = False
    """Whether `to_json` renders its values (an array's elements) by a cast to json that their type has. Such
    a cast can return any JSON. PostgreSQL asks for one only for types that are not its own."""
    shape: str = ""
    """Of a geometry or geography: its type modifier, `Point,4326`; empty if it has none."""


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    columns: tuple[str, ...]
    """Leading plain columns; an expression ends the list."""
    unique: bool
    partial: bool


@dataclass(frozen=True, slots=True)
class Leaf:
    """What carries the rows, and so the replica identity: the table itself, or a partition of it."""

    oid: int
    name: TableName
    identity: Identity
    identity_columns: tuple[str, ...]
    """The columns of old rows that reach the WAL (for `full`: all)."""
    virtual: bool = False
    """It has virtual generated columns (PostgreSQL 18): no publication sends them, and under `full` the
    application's UPDATE and DELETE fail once it is published."""


@dataclass(frozen=True, slots=True)
class Table:
    name: TableName
    oid: int
    kind: Literal["table", "partitioned", "view", "materialized view", "foreign table", "other"]
    persistence: Literal["permanent", "unlogged", "temporary"]
    columns: Mapping[str, Column]
    """In table order."""
    primary_key: tuple[str, ...]
    indexes: tuple[Index, ...]
    leaves: tuple[Leaf, ...]
    inherits: bool = False
    """Part of an old-style inheritance tree (not a partition)."""
    row_security: bool = False
    rows_estimate: int = 0
    can_select: bool = True


@dataclass(frozen=True, slots=True)
class Catalog:
    tables: Mapping[TableName, Table]
    enums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels of every enum type that a column has, by type name."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """The schema of each installed extension, by the extension's name."""
    event_triggers: frozenset[str] = frozenset()
    """The names of those that are enabled, if a table is partitioned."""
    others: tuple[TableName, ...] = ()
    """If one that was asked for is missing: what other tables there are."""
