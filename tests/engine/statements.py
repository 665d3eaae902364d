"""The application's statements over a schema: Hypothesis strategies, and their SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.engine.schema import LONG, VALUES, Column, Schema, Table, literal, word, words

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Statement:
    """One statement. If it fails, it is undone alone."""

    sql: str

    def __str__(self) -> str:
        return self.sql

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        printer.text(str(self))


@dataclass(frozen=True)
class Savepoint:
    """Statements in a savepoint, and whether it is rolled back."""

    statements: tuple[Statement, ...]
    undone: bool

    def __str__(self) -> str:
        inner = "; ".join(map(str, self.statements))
        return f"SAVEPOINT s; {inner}; {'ROLLBACK TO' if self.undone else 'RELEASE'} s"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        printer.text(str(self))


Step = Statement | Savepoint


@dataclass(frozen=True)
class Transaction:
    """A whole transaction, in its own session."""

    steps: tuple[Step, ...]
    how: str

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        printer.text(f"{'; '.join(map(str, self.steps))}; {self.how}")


@dataclass(frozen=True)
class Write:
    """One step in a session's transaction, which stays open."""

    session: int
    step: Step

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        printer.text(f"session {self.session}: {self.step}")


@dataclass(frozen=True)
class End:
    """The end of a session's transaction."""

    session: int
    how: str

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it in Hypothesis' output."""
        printer.text(f"session {self.session}: {self.how}")


Action = Transaction | Write | End
SESSIONS = 2
ENDS = ("COMMIT", "COMMIT", "COMMIT, late", "COMMIT, late", "COMMIT, asynchronous", "ROLLBACK")


def values(column: Column) -> st.SearchStrategy[Any]:
    found = column.values or VALUES[column.type]
    if not column.values and not column.key and column.type == "text":
        found = (*found, LONG, "")  # a key is never long, and the id of a document never empty
    given = st.sampled_from(found)
    return given if column.not_null else given | st.none()


@st.composite
def statements(draw: Draw, tables: Sequence[Table]) -> Statement:
    """Writes one or some rows of one table."""
    table = draw(st.sampled_from(tables))
    kind = draw(st.sampled_from(["update"] * 4 + ["insert", "upsert", "upsert", "delete"]))
    match kind:
        case "insert":
            return Statement(_insert(draw, table))
        case "upsert":
            inserted = f"{_insert(draw, table)} ON CONFLICT ({words(table.key)})"
            return Statement(f"{inserted} DO UPDATE SET {_set(draw, table)}")
        case "update":
            return Statement(f"UPDATE {word(table.name)} SET {_set(draw, table)}{draw(_some(table))}")
    return Statement(f"DELETE FROM {word(table.name)}{draw(_some(table, all_rows=False))}")


@st.composite
def rows(draw: Draw, schema: Schema) -> list[Statement]:
    """Inserts some rows into every table, one per statement. A row that fits no foreign key fails alone."""
    return [
        Statement(_insert(draw, table, max_size=1)) for table in schema.tables for _ in range(draw(st.integers(3, 6)))
    ]


@st.composite
def replacements(draw: Draw, tables: Sequence[Table]) -> Savepoint:
    """Deletes a row, and inserts another one with its key at once."""
    table = draw(st.sampled_from(tables))
    columns = [column for column in table.columns if not column.generated]
    row = {column.name: literal(draw(values(column))) for column in columns}
    key = " AND ".join(f"{word(name)} = {row[name]}" for name in table.key)
    deleted = f"DELETE FROM {word(table.name)} WHERE {key}"
    inserted = f"INSERT INTO {word(table.name)} ({words(row)}) VALUES ({', '.join(row.values())})"
    return Savepoint((Statement(deleted), Statement(inserted)), False)


def truncates(tables: Sequence[Table]) -> st.SearchStrategy[Statement]:
    return st.sampled_from(tables).map(lambda table: Statement(f"TRUNCATE {word(table.name)} CASCADE"))


def steps(tables: Sequence[Table]) -> st.SearchStrategy[Step]:
    one = statements(tables)
    several = st.builds(Savepoint, st.lists(one, min_size=1, max_size=2).map(tuple), st.booleans())
    return st.one_of(*[one] * 7, several, replacements(tables))


def actions(tables: Sequence[Table]) -> st.SearchStrategy[Action]:
    """Acts on these tables. Only whole transactions truncate, because a truncate blocks all other sessions."""
    one, session = steps(tables), st.integers(0, SESSIONS - 1)
    several = st.lists(one, min_size=1, max_size=4).map(tuple)
    emptied = st.tuples(one, truncates(tables), one)
    some = st.integers(0, 39).flatmap(lambda dice: emptied if dice == 39 else several)
    whole = st.builds(Transaction, some, st.sampled_from(ENDS))
    write = st.builds(Write, session, one)
    end = st.builds(End, session, st.sampled_from(ENDS))  # soon: an open transaction locks its rows
    return st.one_of(whole, whole, whole, whole, write, end, end)


def _insert(draw: Draw, table: Table, max_size: int = 2) -> str:
    columns = [column for column in table.columns if not column.generated]
    row = st.tuples(*map(values, columns)).map(lambda row: f"({', '.join(map(literal, row))})")
    given = draw(st.lists(row, min_size=1, max_size=max_size, unique=True))
    names = words(column.name for column in columns)
    return f"INSERT INTO {word(table.name)} ({names}) VALUES {', '.join(given)}"


def _set(draw: Draw, table: Table) -> str:
    """Returns assignments to one or two columns, which may be key columns."""
    columns = st.sampled_from([column for column in table.columns if not column.generated])
    chosen = draw(st.lists(columns, min_size=1, max_size=2, unique=True))
    return ", ".join(f"{word(column.name)} = {literal(draw(values(column)))}" for column in chosen)


@st.composite
def _some(draw: Draw, table: Table, *, all_rows: bool = True) -> str:
    """Returns a condition on a column's value, or none for all rows."""
    keys = [table.column(name) for name in table.key]
    column = draw(st.sampled_from(draw(st.sampled_from([keys, keys, table.columns]))))
    value = literal(draw(values(column)))
    equal = f"{word(column.name)} IS NULL" if value == "NULL" else f"{word(column.name)} = {value}"
    return f" WHERE {equal}" if not all_rows or draw(st.integers(0, 3)) else ""
