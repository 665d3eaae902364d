"""Binds `up`: the ancestors of a row in a tree. `ancestors_sql.py` writes their SQL.

A tree is a table whose rows link to other rows of it. A climb starts at a row, the outer row, and follows the link
`on` to the first ancestor. From there it follows the link `step` again and again. Both links end at a unique key, so
each step leads to at most one row, and a climb is a path.
"""

from __future__ import annotations

from collections.abc import Sequence

from syncer.declaration.array_links import links
from syncer.declaration.catalog import Column, Table
from syncer.declaration.compiled import Climb
from syncer.declaration.sql_types import EXTENSION_KEYS
from syncer.declaration.text_links import compares_texts

Pairs = tuple[tuple[str, str], ...]


class StepError(Exception):
    """The step of a climb cannot be used. what, hint: as in `errors.Fatal`."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def climb(table: Table, outer: Table, on: Pairs, step: Pairs, limit: int, *, farthest_first: bool) -> Climb:
    """Returns the climb of a relation.

    table: the tree. outer: the table of the outer row. on, step: pairs of a column of the row above and a column of the
    row below. step: empty if the declaration has none.
    Raises StepError.
    """
    same = table.name == outer.name
    if not step and not same:
        raise StepError(
            f"`step` is missing: it links each row of {table.name} to the next ancestor",
            f"write step: {{{', '.join(f'{own}: {_guess(table, own)}' for own, _ in on)}}}",
        )
    if not step:
        step = on
    if {own for own, _ in step} != {own for own, _ in on}:
        columns = ", ".join(own for own, _ in on)
        raise StepError(
            f"`step` leads to other columns of {table.name} than `on`", f"use the columns of `on` as keys: {columns}"
        )
    if any(own == other for own, other in step) and len(step) == 1:
        raise StepError(f"`step` leads from each row of {table.name} to itself", "name the column with the parent")
    for pairs, below in ((on, outer), (step, table)):
        for own, other in pairs:
            _check_types(table, own, below, other)
    others = dict(step)
    step = tuple((own, others[own]) for own, _ in on)
    return Climb(step, limit, farthest_first, starts_in_tree=same and step == on)


def _check_types(table: Table, own: str, below: Table, other: str) -> None:
    """Raises StepError for a link that compares texts, or needs an operator of an extension."""
    one, two = table.columns[own], below.columns[other]
    if compares_texts(one, two) or links(one, two) or one.base in EXTENSION_KEYS:
        types = f"{table.name}.{own} ({one.type}) and {below.name}.{other} ({two.type})"
        raise StepError(
            f"a path of ancestors cannot link {types}", "use columns of one built-in type, such as bigint, uuid or text"
        )


def _guess(table: Table, own: str) -> str:
    """Returns the column that probably contains the parent's key."""
    key = table.columns[own]
    fitting = [name for name, column in table.columns.items() if name != own and _alike(column, key)]
    return next((name for name in fitting if "parent" in name), _first(fitting))


def _first(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else "parent_id"


def _alike(one: Column, other: Column) -> bool:
    return one.base == other.base
