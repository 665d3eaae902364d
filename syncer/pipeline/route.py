"""Stage 3, route: finds the table uses in the read model's tree that a change event touches. Pure.

An update that changes no column of a table use does not touch it. This can be decided only for columns whose exact
values are certain to be in both images (`TableUse.comparable`). In doubt, the change touches it: a needless render is
harmless, a missed one is not.
"""

from __future__ import annotations

from typing import Any

from syncer.declaration.compile import Compiled, TableUse
from syncer.events import ChangeEvent, Image, TableName

UNAVAILABLE = "__debezium_unavailable_value"
"""Debezium's placeholder for an unchanged TOASTed value, which WAL does not carry."""
_ABSENT = object()


class Route:
    """Dispatches by table. The tree may use a table several times, or not at all."""

    def __init__(self, compiled: Compiled) -> None:
        self._uses: dict[TableName, list[tuple[TableUse, tuple[str, ...]]]] = {}
        for use in compiled.table_uses:
            certain = use.used if use.used <= use.comparable else frozenset()
            self._uses.setdefault(use.table, []).append((use, tuple(sorted(certain))))

    def knows(self, table: TableName) -> bool:
        """Whether the read model uses this table."""
        return table in self._uses

    def __call__(self, change: ChangeEvent) -> list[TableUse]:
        """Returns the table uses that a change may touch."""
        uses = [
            (use, columns) for use, columns in self._uses.get(change.table, ()) if not use.ops or change.op in use.ops
        ]
        if change.op != "u" or change.before is None or change.after is None:
            return [use for use, _ in uses]
        before, after = change.before, change.after
        return [use for use, certain in uses if not certain or any(differs(before, after, c) for c in certain)]


def differs(before: Image, after: Image, column: str) -> bool:
    """Whether a column may have changed."""
    old: Any = before.get(column, _ABSENT)
    new: Any = after.get(column, _ABSENT)
    return old is _ABSENT or old != new or old == UNAVAILABLE or isinstance(old, float)
