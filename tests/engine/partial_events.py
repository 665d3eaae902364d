"""Events that are rare in a random history, and that partials depend on.

Only a row that moves makes two buckets dirty. Only an emptied bucket, a root that returns, and a sink that has
forgotten a document show whether old partials count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.engine.partials import PartialCase
from tests.engine.schema import Column, Table, literal, word, words
from tests.engine.statements import ENDS, Statement, Step, Transaction, values

Draw = Callable[[st.SearchStrategy[Any]], Any]
FORGET = "the sink forgets deleted documents"
REFUSE = "documents will be refused"


@st.composite
def earlier_rows(draw: Draw, case: PartialCase) -> list[Step]:
    """Inserts rows into every table, most of them into the divided one. A row whose key exists fails alone."""
    root, divided, third = case.schema.tables
    counts = ((root, 3, 5), (third, 3, 5), (divided, 6, 14))
    tables = [table for table, low, high in counts for _ in range(draw(st.integers(low, high)))]
    return [Statement(_insert(draw, table, {})) for table in tables]


@st.composite
def episodes(draw: Draw, case: PartialCase, take: st.SearchStrategy[Any]) -> list[Any]:
    """Returns events that belong together. take: the part of the changes that is processed after a write."""
    kind = draw(st.sampled_from((_moved, _moved, _emptied, _returned, _refused)))
    return [
        event
        if isinstance(event, str)
        else (Transaction((Statement(event[0]),), draw(st.sampled_from(ENDS))), event[1])
        for event in kind(draw, case, take)
    ]


def _moved(draw: Draw, case: PartialCase, take: st.SearchStrategy[Any]) -> list[Any]:
    """Changes one column that decides about the root, the bucket, or the part in an aggregate or a list."""
    table = draw(st.sampled_from([case.divided] * 3 + list(case.schema.tables)))
    column = draw(st.sampled_from(_deciding(case, table)))
    value = _value(draw, column)
    condition = draw(st.sampled_from([*map(table.column, table.key), *_deciding(case, table)]))
    where = draw(st.sampled_from([f" WHERE {_equal(draw, condition)}"] * 3 + [""]))
    return [(f"UPDATE {word(table.name)} SET {word(column.name)} = {value}{where}", draw(take))]


def _deciding(case: PartialCase, table: Table) -> list[Column]:
    """Returns the columns of a table that expressions, links and buckets use; all columns if there are none."""
    names = {join.own for join in case.joins.values() if join.table == table.name}
    names |= {join.other for join in case.joins.values() if table in (case.root, case.divided)}
    texts = [one.sql for one in (*case.order, *case.fields, *filter(None, (case.where, case.root_where)))]
    row = {case.root.name: "r", case.divided.name: "e"}.get(table.name, "j")
    names |= {c.name for c in table.columns if any(f"{row}.{word(c.name)}" in text for text in texts)}
    if table == case.divided:
        names |= {case.by, *(own for own, _ in case.link)}
    return [c for c in table.columns if c.name in names] or list(table.columns)


def _emptied(draw: Draw, case: PartialCase, take: st.SearchStrategy[Any]) -> list[Any]:
    """Deletes the rows of a bucket, and inserts a row into it."""
    table, by = case.divided, case.divided.column(case.by)
    value = _value(draw, by)
    row = {case.by: value}
    deleted = f"DELETE FROM {word(table.name)} WHERE {word(case.by)} = {value}"
    return [(deleted, draw(take)), (_insert(draw, table, row), draw(take))]


def _returned(draw: Draw, case: PartialCase, take: st.SearchStrategy[Any]) -> list[Any]:
    """Deletes a root, changes its rows, and inserts it again. The sink may have forgotten it meanwhile."""
    key = {name: _value(draw, case.root.column(name)) for name in case.root.key}
    condition = " AND ".join(f"{word(name)} = {value}" for name, value in key.items())
    deleted = f"DELETE FROM {word(case.root.name)} WHERE {condition}"
    meanwhile = draw(st.sampled_from(([FORGET], [FORGET, *_moved(draw, case, take)], _moved(draw, case, take))))
    return [(deleted, draw(take)), *meanwhile, (_insert(draw, case.root, key), draw(take))]


def _refused(draw: Draw, case: PartialCase, take: st.SearchStrategy[Any]) -> list[Any]:
    return [REFUSE, *_moved(draw, case, take)]


def _equal(draw: Draw, column: Column) -> str:
    value = _value(draw, column)
    return f"{word(column.name)} IS NULL" if value == "NULL" else f"{word(column.name)} = {value}"


def _value(draw: Draw, column: Column) -> str:
    """Returns a literal. Few are NULL, because a row without a link belongs to no document."""
    is_null = not column.not_null and draw(st.integers(0, 5)) == 5
    return "NULL" if is_null else literal(draw(values(replace(column, not_null=True))))


def _insert(draw: Draw, table: Table, known: dict[str, str]) -> str:
    """Returns a statement that inserts one row. known: the values that are not drawn."""
    row = {c.name: known.get(c.name) or _value(draw, c) for c in table.columns if not c.generated}
    return f"INSERT INTO {word(table.name)} ({words(row)}) VALUES ({', '.join(row.values())})"
