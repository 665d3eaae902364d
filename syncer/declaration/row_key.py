"""Chooses the columns that identify a row of a table without a primary key: those of a unique index.

The index has to suit a replica identity, so PostgreSQL's rules apply: no expression, no condition, not deferrable, and
no column that can be NULL (manual, "REPLICA IDENTITY"). NULLs are never equal, so such rows would not be unique.
Only related tables can have such a key. A root table needs a primary key, because it is the id of its documents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from syncer.declaration.catalog import Column, Index, Table
from syncer.declaration.names import quote
from syncer.declaration.sql_types import EXTENSION_KEYS, KEYABLE


def row_key(columns: Mapping[str, Column], indexes: Sequence[Index], identity: Collection[str] = ()) -> Index | None:
    """Returns the unique index that identifies a row, or None if there is none.

    identity: the columns of old rows in WAL. An index of exactly these columns is preferred, then the one with the
    fewest columns, then the first one by name.
    """
    found = [index for index in indexes if index.columns and not _defect(columns, index)]
    return min(found, key=lambda i: (set(i.columns) != set(identity), len(i.columns), i.name), default=None)


def _defect(columns: Mapping[str, Column], index: Index) -> str:
    """Returns why an index does not identify a row. Empty if it does."""
    if index.unique_expression:
        return "it has an expression"
    if not index.unique:
        return "it is not unique"
    if index.partial:
        return "it is partial"
    if index.deferrable:
        return "it is deferrable"
    if nullable := [name for name in index.columns if not columns[name].not_null]:
        return f"{', '.join(nullable)} can be NULL"
    if other := [name for name in index.columns if columns[name].base not in KEYABLE | EXTENSION_KEYS]:
        return f"the type of {', '.join(other)} cannot be a key"
    return ""


def missing(table: Table, *, root: bool) -> tuple[str, str]:
    """Returns what a table without a usable key lacks, and a hint. root: whether it is the root table."""
    name = quote(*table.name)
    unique = [index for index in table.indexes if index.unique or index.unique_expression]
    chosen = row_key(table.columns, table.indexes)
    if root and not chosen:  # a primary key makes its columns NOT NULL
        chosen = next((i for i in unique if _defect(table.columns, i).endswith("can be NULL")), None)
    listed = ", ".join(map(quote, chosen.columns)) if chosen else "…"
    added = f"ALTER TABLE {name} ADD PRIMARY KEY ({listed})"
    if root and chosen:
        columns = ", ".join(chosen.columns)
        what = f"{table.name} has no primary key; the unique index on ({columns}) is not enough for the root table"
        return what, added
    if not unique:
        return f"{table.name} has no primary key", added
    defects = "; ".join(f"{index.name}: {_defect(table.columns, index)}" for index in unique)
    what = f"{table.name} has no primary key, and no unique index identifies its rows ({defects})"
    return what, _fix(table, unique) or added


def _fix(table: Table, unique: Sequence[Index]) -> str:
    """Returns the statement that makes columns NOT NULL, if nothing else is wrong with one of the indexes."""
    for index in unique:
        defect = _defect(table.columns, index)
        if defect.endswith("can be NULL"):
            nullable = [name for name in index.columns if not table.columns[name].not_null]
            changed = ", ".join(f"ALTER {quote(name)} SET NOT NULL" for name in nullable)
            return f"ALTER TABLE {quote(*table.name)} {changed}"
    return ""
