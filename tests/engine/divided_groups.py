"""Read models over groups whose rows are divided into buckets: Hypothesis strategies.

The oracle is that of `groups.py`. The grouped rows are those of the divided table `b` of `partial_tables.py`, with the
name `t` in the oracle. They are joined to rows `j`, and these to rows `i`. `partials.py` draws the aggregates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.engine.groups import GroupedCase, groups_of, joins, sufficient_identity
from tests.engine.partial_tables import divided_schemas
from tests.engine.partials import MERGEABLE, Both, Divided, aggregates, conditions
from tests.engine.schema import Column, Table, word

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class DividedGroups(GroupedCase):
    """The tables and the read model of one history."""

    by: str = ""
    size: int | str = 0

    def root(self) -> dict[str, Any]:
        return super().root() | {"partials": {"by": self.by, "size": self.size}}

    @property
    def tables(self) -> list[Table]:
        return [*super().tables, self.schema[self.table]]


@st.composite
def divided_groups(draw: Draw) -> DividedGroups:
    schema, _, by, size = draw(divided_schemas())
    table, nulls = schema.tables[1], draw(st.booleans())
    chosen, groups = draw(groups_of(table, nulls))
    shared = {c.name for c, (text, _) in zip(chosen, groups, strict=True) if text == word(c.name)}
    join = draw(joins(schema, table, shared))
    nested = draw(joins(schema, schema[join.table])) if join else None
    columns = _columns("", "t", table.columns)
    columns += _columns("j.", "j", schema[join.table].columns) if join else []
    columns += _columns("j.i.", "i", schema[nested.table].columns) if nested else []
    sortable = all(table.column(name).type in MERGEABLE for name in table.key)
    of_rows = Divided("count(*)", _both("", "t", by), tuple(f"t.{word(name)}" for name in table.key), sortable)
    fields = draw(st.lists(aggregates(columns, [], of_rows), max_size=4))
    if join and join.other in shared:  # the rows of a group have the same rows of `j` and `i`
        shown = draw(st.lists(st.sampled_from([one for one in columns if one.text.startswith("j.")]), max_size=2))
        fields += [Both(one.text, f"(array_agg({one.sql}))[1]") for one in shown]
    joined = columns[len(table.columns) :]
    where = draw(conditions(columns) | conditions(joined or columns)) if draw(st.booleans()) else None
    needed: dict[str, set[str]] = {table.name: {by, *(c.name for c in chosen), *([join.other] if join else [])}}
    for one in filter(None, (join, nested)):
        needed.setdefault(one.table, set()).add(one.own)
    if join and nested:
        needed[join.table].add(nested.other)
    return DividedGroups(
        schema,
        table.name,
        groups,
        nulls,
        tuple((field.text, field.sql) for field in fields),
        (where.text, where.sql) if where else None,
        join,
        {t.name: sufficient_identity(draw, t, needed.get(t.name, set())) for t in schema.tables},
        nested,
        by,
        size,
    )


def _columns(prefix: str, alias: str, columns: Sequence[Column]) -> list[Both]:
    return [_both(prefix, alias, c.name)._replace(column=c) for c in columns]


def _both(prefix: str, alias: str, name: str) -> Both:
    return Both(f"{prefix}{word(name)}", f"{alias}.{word(name)}")
