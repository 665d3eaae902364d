"""Stage 2, route: which places in the read model's tree does a change event touch? Pure.

An update that changes none of the columns a place uses touches nothing there; but only where both images
are certain to tell (`TableUse.comparable`). In doubt it counts: a needless render is harmless, a missed
one is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from syncer.declaration.compile import Compiled, TableUse
from syncer.events import ChangeEvent, Image, TableName

UNAVAILABLE = "__debezium_unavailable_value"
"""What Debezium puts in the place of an unchanged TOASTed value that the WAL does not carry."""
_ABSENT = object()


class Route:
    """Dispatch by table. A table may occur at several places, or at none (then nothing is touched)."""

    def __init__(self, compiled: Compiled) -> None:
        self._places: dict[TableName, list[tuple[TableUse, tuple[str, ...]]]] = {}
        for occurrence in compiled.occurrences:
            certain = occurrence.used if occurrence.used <= occurrence.comparable else frozenset()
            self._places.setdefault(occurrence.table, []).append((occurrence, tuple(sorted(certain))))

    def knows(self, table: TableName) -> bool:
        return table in self._places

    def __call__(self, change: ChangeEvent) -> list[TableUse]:
        places = self._places.get(change.table, ())
        if change.op != "u" or change.before is None or change.after is None:
            return [occurrence for occurrence, _ in places]
        before, after = change.before, change.after
        return [occurrence for occurrence, certain in places if not certain or _differ(before, after, certain)]


def _differ(before: Image, after: Image, columns: Iterable[str]) -> bool:
    """Whether any of the columns may have changed."""
    for column in columns:
        old: Any = before.get(column, _ABSENT)
        new: Any = after.get(column, _ABSENT)
        if old is _ABSENT or old != new or old == UNAVAILABLE or isinstance(old, float):
            return True
    return False
