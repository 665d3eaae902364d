"""Describes a grouped root: the expressions that group the rows of its table. `grouping.py` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlglot import exp

from syncer.declaration.catalog import Column
from syncer.declaration.group_span import Span

ROW = "\x02"
"""Stands for the alias of a row in the SQL of a group expression."""


class GroupPart(NamedTuple):
    """An expression that is a group expression, or a part of one."""

    text: str
    """For people."""
    sql: str
    """With `ROW` in place of the row's alias."""


@dataclass(frozen=True, slots=True)
class GroupKey:
    """One group expression."""

    name: str
    text: str
    """As the declaration writes it."""
    tree: exp.Expr
    template: str
    """The SQL, with `ROW` in place of the row's alias."""
    base: str
    """The type of its values, as in `Column.base`."""
    type: str
    """The type that the text of a value is cast to (`sql_types.key_type`)."""
    columns: tuple[str, ...]
    """The columns that it depends on, in table order."""
    bare: bool
    """Whether the expression is one of the columns."""
    span: Span | None = None
    parts: tuple[GroupPart, ...] = ()
    """Its parts, the whole expression last. Each follows the parts that it contains."""
    local: GroupPart | None = None
    """The expression over local times instead of instants. None if it uses no instant, or cannot be written so."""

    def sql(self, alias: str) -> str:
        """Returns the expression over a row with this alias."""
        return self.template.replace(ROW, alias)


@dataclass(frozen=True, slots=True)
class Grouping:
    """The group expressions of a root, in key order."""

    keys: tuple[GroupKey, ...]
    columns: tuple[Column, ...]
    """The columns that the expressions depend on, in table order."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(key.name for key in self.keys)

    @property
    def nullable(self) -> bool:
        """Whether a row of a change event can have NULL in one of the columns."""
        return not all(column.not_null for column in self.columns)

    def sql(self, alias: str) -> list[str]:
        """Returns the group expressions over a row with this alias."""
        return [key.sql(alias) for key in self.keys]

    def present(self, alias: str) -> str:
        """Returns the condition that a row belongs to a group."""
        return " AND ".join(f"{sql} IS NOT NULL" for sql in self.sql(alias))

    def whole(self, column: str) -> bool:
        """Whether a column is only used as a group value itself. Then its type may be the widest of its family."""
        return all(key.bare for key in self.keys if column in key.columns)
