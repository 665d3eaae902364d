"""Examples of read models, each with an application that uses it: `make example NAME=…`.

Each module here is one example: the application's queries, and their check against SQL. The folder of the same name in
`readmodels/` has its read models, and `schema.sql` if it does not use the shop of the demo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from demo import screen
from demo.screen import Failed
from devstack import Stack

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Servers:
    """What an example reads: the running servers, and the database of the application."""

    stack: Stack
    dsn: str

    def rows(self, query: LiteralString, *values: Any) -> list[dict[str, Any]]:
        """Returns the rows of a query in the application's database."""
        with psycopg.connect(self.dsn, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(query, values).fetchall()


@dataclass(frozen=True)
class Example:
    """One example.

    title: what it shows.
    use: the application: writes for some seconds. Arguments: the DSN of its database, the seconds.
    show: prints the application's queries and their results, and compares them with SQL (`expect_equal`).
    fill: fills the tables of `schema.sql`. None: the example uses the shop.
    stores: creates databases for the documents, and returns settings of the syncer as variables.
    """

    name: str
    title: str
    use: Callable[[str, float], None]
    show: Callable[[Servers], None]
    fill: Callable[[psycopg.Connection[Any]], None] | None = None
    stores: Callable[[Stack], dict[str, str]] = lambda stack: {}

    @property
    def folder(self) -> Path:
        """The folder of the read models."""
        return ROOT / "readmodels" / self.name


def expect_equal(what: str, shown: Any, expected: Any) -> None:
    """Prints that a result equals that of SQL. Raises Failed if it does not."""
    if shown != expected:
        raise Failed(
            f"{what} differs from PostgreSQL.\nRead model: {screen.json_text(shown)}\n"
            f"PostgreSQL: {screen.json_text(expected)}"
        )
    screen.note(f"{what}: equal to SQL over the tables")
