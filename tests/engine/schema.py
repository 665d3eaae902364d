"""Small tables, and the SQL that creates them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

LONG = "x" * 200
"""Stored outside the row (`toast_tuple_target`), so an update that does not change it does not log it."""
VALUES: dict[str, tuple[Any, ...]] = {
    "integer": (0, 1, 2, 3, 4),
    "bigint": (0, 1, 2, (1 << 53) + 1),
    "text": ("a", "b", "a|b", "\\", "é'%", "1", "02", str(UUID(int=0))),
    "varchar": ("a", "b ", "a|b", "3", "high"),
    "character(3)": ("a  ", "b  ", "a|b"),
    "numeric": (Decimal(1), Decimal("1.00"), Decimal("2.5")),
    "date": (date(2024, 2, 29), date(1, 1, 1)),
    "timestamptz": (
        datetime(2024, 2, 29, 12, 34, 56, 123456, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2024, 3, 30, 23, 0, tzinfo=UTC),  # the first and the last hour of a day of 23 hours in Berlin
        datetime(2024, 3, 31, 21, 59, 59, tzinfo=UTC),
        datetime(2024, 11, 3, 4, 30, tzinfo=UTC),  # 00:30 in Havana, for the first time
        datetime(2024, 11, 3, 5, 30, tzinfo=UTC),
    ),
    "timestamp": ("2024-02-29 12:34:56.123456", "2024-02-29 13:00:00", "1969-12-31 23:59:00"),
    "uuid": (UUID(int=0), UUID(int=1 << 127), UUID(int=(1 << 127) + 10)),
    "bytea": (b"", b"\0\xff", b"a"),
    "mood": ("high", "low"),
    "boolean": (False, True),
    "integer[]": ([], [None], [1], [2, 1], [3, 3, None], [0, 1, 2, 3, 4], [4, 1 << 30], [[1, 2], [2, 0]]),
    "bigint[]": ([], [2], [1, 2, 1], [3, None, (1 << 53) + 1], [0, 4], [1 << 62, 1]),
    "text[]": ([], ["a"], ["b", "a", None], ["a|b", "é'%", "\\", "x,y", '"'], ["NULL", "", "1"]),
}
"""By type: a few values, so that rows often match. Among them are equal keys with different texts, ids that need
escapes, and numbers that no double can hold. Some texts are those of values of other types, or nearly. `mood` is an
enum with its labels in this order."""


Identity = str | tuple[str, ...]
"""A replica identity: FULL, DEFAULT, or the columns of an index."""
_REMAINDER = "FOR VALUES WITH (MODULUS 2, REMAINDER {})"


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    not_null: bool = False
    generated: str = ""
    key: bool = False
    values: tuple[Any, ...] = ()
    """The values that the application writes. Empty: those of the type."""

    def __str__(self) -> str:
        made = f" GENERATED ALWAYS AS ({self.generated}) STORED" if self.generated else ""
        return f"{word(self.name)} {self.type}{' NOT NULL' if self.not_null else ''}{made}"


@dataclass(frozen=True)
class Reference:
    """A foreign key on the only key column of another table (or of the same)."""

    column: str
    table: str
    key: str
    on_delete: str

    def __str__(self) -> str:
        key = f"FOREIGN KEY ({word(self.column)}) REFERENCES {word(self.table)} ({word(self.key)})"
        return f"{key} ON UPDATE CASCADE ON DELETE {self.on_delete}"


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    unique: str = ""
    """Another unique column."""
    references: tuple[Reference, ...] = ()
    partitioned: bool = False
    had: bool = False
    """Whether a first column was dropped."""
    has_primary_key: bool = True
    """Whether the key is the primary key. If not, it is a unique index."""

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def sql(self, identity: Identity) -> Iterator[str]:
        name = word(self.name)
        unique = f", UNIQUE ({word(self.unique)})" if self.unique else ""
        by = f" PARTITION BY HASH ({word(self.key[0])})" if self.partitioned else ""
        columns = ", ".join(map(str, self.columns))
        had = "had integer, " if self.had else ""
        key = "PRIMARY KEY" if self.has_primary_key else "UNIQUE"
        yield f"CREATE TABLE {name} ({had}{columns}, {key} ({words(self.key)}){unique}){by}"
        for column in self.columns:
            if column.type.endswith("[]"):
                yield f"CREATE INDEX ON {name} USING gin ({word(column.name)})"
        if self.had:
            yield f"ALTER TABLE {name} DROP had"
        leaves = [self.name]
        if self.partitioned:
            leaves = [f"{self.name}_{n}" for n in range(2)]
            yield f"CREATE TABLE {word(leaves[0])} PARTITION OF {name} {_REMAINDER.format(0)}"
            columns = ", ".join(map(str, reversed(self.columns)))  # a leaf may have another column order
            yield f"CREATE TABLE {word(leaves[1])} ({columns})"
            yield f"ALTER TABLE {name} ATTACH PARTITION {word(leaves[1])} {_REMAINDER.format(1)}"
        for leaf in leaves:
            how = identity
            if not isinstance(identity, str):
                index = f"{leaf}_identity"
                yield f"CREATE UNIQUE INDEX {word(index)} ON {word(leaf)} ({words(identity)})"
                how = f"USING INDEX {word(index)}"
            yield f"ALTER TABLE {word(leaf)} REPLICA IDENTITY {how}"
            texts = [c for c in self.columns if c.type == "text"]
            outside = [f", ALTER {word(c.name)} SET STORAGE EXTERNAL" for c in texts]
            yield f"ALTER TABLE {word(leaf)} SET (toast_tuple_target = 128){''.join(outside)}"


@dataclass(frozen=True)
class Schema:
    tables: tuple[Table, ...]
    odd: bool = False
    """Whether its names, and those of the read model, are odd."""

    def __getitem__(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)

    def sql(self, identities: dict[str, Identity]) -> Iterator[str]:
        """identities: by table."""
        yield f"CREATE TYPE mood AS ENUM ({', '.join(map(literal, VALUES['mood']))})"
        for table in self.tables:
            yield from table.sql(identities[table.name])
        for table in self.tables:
            for reference in table.references:
                yield f"ALTER TABLE {word(table.name)} ADD {reference}"


def word(name: str) -> str:
    """Returns a name in SQL, quoted if necessary."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and name.islower() and name != "select"
    return name if plain else '"' + name.replace('"', '""') + '"'


def words(names: Iterable[str]) -> str:
    return ", ".join(map(word, names))


def literal(value: Any) -> str:
    """Returns a value in SQL."""
    if value is None or isinstance(value, bool):
        return {None: "NULL", True: "true", False: "false"}[value]
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, list):
        return "'" + _array(value).replace("'", "''") + "'"
    if isinstance(value, str) and len(value) == len(LONG):
        return f"repeat('{value[0]}', {len(value)})"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    return "'" + str(value).replace("'", "''") + "'"


def _array(value: Any) -> str:
    """Returns PostgreSQL's text of an array, or of one of its elements."""
    if isinstance(value, list):
        return f"{{{','.join(map(_array, value))}}}"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "NULL" if value is None else str(value)
