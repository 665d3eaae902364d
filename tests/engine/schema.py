"""Small tables: what they have, and the SQL that makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

LONG = "x" * 200
"""Kept outside the row (`toast_tuple_target`), so that an update that leaves it alone does not log it."""
VALUES: dict[str, tuple[Any, ...]] = {
    "integer": (0, 1, 2, 3, 4),
    "text": ("a", "b", "a|b", "\\"),
    "numeric": (Decimal(1), Decimal("1.00"), Decimal("2.5")),
    "date": (date(2024, 2, 29), date(1, 1, 1)),
    "boolean": (False, True),
}
"""Few enough for rows to meet, many enough to tell apart: equal keys that look different, ids that need
escapes."""


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    not_null: bool = False
    generated: str = ""

    def __str__(self) -> str:
        made = f" GENERATED ALWAYS AS ({self.generated}) STORED" if self.generated else ""
        return f"{self.name} {self.type}{' NOT NULL' if self.not_null else ''}{made}"


@dataclass(frozen=True)
class Reference:
    """A foreign key on the only key column of another table (or of the same)."""

    column: str
    table: str
    key: str
    on_delete: str

    def __str__(self) -> str:
        told = f"FOREIGN KEY ({self.column}) REFERENCES {self.table} ({self.key})"
        return f"{told} ON UPDATE CASCADE ON DELETE {self.on_delete}"


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    unique: str = ""
    """A column that is unique besides the key."""
    references: tuple[Reference, ...] = ()
    partitioned: bool = False

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def sql(self, identity: str) -> Iterator[str]:
        unique = f", UNIQUE ({self.unique})" if self.unique else ""
        by = f" PARTITION BY HASH ({self.key[0]})" if self.partitioned else ""
        columns = ", ".join(map(str, self.columns))
        yield f"CREATE TABLE {self.name} ({columns}, PRIMARY KEY ({', '.join(self.key)}){unique}){by}"
        leaves = [self.name]
        if self.partitioned:
            leaves = [f"{self.name}_{n}" for n in range(2)]
            for n, leaf in enumerate(leaves):
                part = f"FOR VALUES WITH (MODULUS 2, REMAINDER {n})"
                yield f"CREATE TABLE {leaf} PARTITION OF {self.name} {part}"
        for leaf in leaves:
            yield f"ALTER TABLE {leaf} REPLICA IDENTITY {identity}"
            outside = [f", ALTER {c.name} SET STORAGE EXTERNAL" for c in self.columns if c.type == "text"]
            yield f"ALTER TABLE {leaf} SET (toast_tuple_target = 128){''.join(outside)}"


@dataclass(frozen=True)
class Schema:
    tables: tuple[Table, ...]

    def __getitem__(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)

    def sql(self, identities: dict[str, str]) -> Iterator[str]:
        """identities: FULL or DEFAULT, by table."""
        for table in self.tables:
            yield from table.sql(identities[table.name])
        for table in self.tables:
            for reference in table.references:
                yield f"ALTER TABLE {table.name} ADD {reference}"


def literal(value: Any) -> str:
    """A value in SQL."""
    if value is None or isinstance(value, bool):
        return {None: "NULL", True: "true", False: "false"}[value]
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, str) and len(value) == len(LONG):
        return f"repeat('{value[0]}', {len(value)})"
    return f"'{value}'"
