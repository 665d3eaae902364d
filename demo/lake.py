"""Reads an exported table with DuckDB and its own extension for Delta, which shares no code with the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import duckdb_ext


def connect() -> duckdb.DuckDBPyConnection:
    """Returns a database in memory with the extension. Times are in UTC."""
    [extension] = Path(next(iter(duckdb_ext.__path__))).rglob("delta.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


class Lake:
    """A table as an analyst sees it. Each query reads its newest version.

    views: SQL that every query finds. It can use the view `lake`, which is the whole table.
    """

    def __init__(self, folder: Path | str, views: str = "") -> None:
        self.folder, self._views = folder, views

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a query. Times are in UTC."""
        return [tuple(row.values()) for row in self.rows(sql)]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """As `query`, with the names of the columns."""
        with connect() as connection:
            connection.execute(f"CREATE VIEW lake AS SELECT * FROM delta_scan('{self.folder}')")
            if self._views:
                connection.execute(self._views)
            found = connection.execute(sql)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
