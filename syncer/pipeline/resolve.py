"""Stage 4, resolve: finds the dirty roots of the table uses that a change touches. Pure; the view runs the look-ups.

A changed row holds the columns that link it to its parent. Their values before *and* after the change count. So a
row that moves to another parent, or is deleted, also dirties the root that it leaves. The rest of the path up to
the root is looked up in the snapshot, for all events of a batch together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncer.declaration.compile import Compiled, Lookup, TableUse
from syncer.errors import Fatal
from syncer.events import ChangeEvent, Image, Key


@dataclass(slots=True)
class Dirty:
    """The effect of a batch: dirty roots by key, values to look up, and whether all roots are dirty."""

    keys: dict[Key, None] = field(default_factory=dict)
    lookups: dict[Lookup, dict[Key, None]] = field(default_factory=dict)
    all_roots: bool = False
    """A table below the root was truncated. Any root may have shown its rows."""
    root_gone: bool = False
    """The root table was truncated. Documents without a row have to be deleted."""
    lacking_old_row: set[int | None] = field(default_factory=set)
    """The transactions of updates whose events lack the old row."""

    def __bool__(self) -> bool:
        return bool(self.keys or self.lookups or self.all_roots or self.root_gone or self.lacking_old_row)


class Resolve:
    """Collects the dirty roots of a batch."""

    def __init__(self, compiled: Compiled) -> None:
        self._root = Lookup(compiled.key, compiled.key_types, None)
        self._need_before = frozenset(p.table for p in compiled.table_uses if p.needs_before)

    def __call__(self, change: ChangeEvent, uses: Sequence[TableUse], dirty: Dirty) -> None:
        """Adds the roots that a change dirties through these table uses.

        Raises Fatal if the event lacks a linking column.
        """
        for use in uses:
            if change.op == "t":
                dirty.all_roots |= use.lookup is not None
                dirty.root_gone |= use.lookup is None
                continue
            lookup = use.lookup or self._root
            into = dirty.keys if lookup.sql is None else dirty.lookups.setdefault(lookup, {})
            for image in (change.before, change.after):
                if image is not None:
                    value = _values(image, lookup, change)
                    if value is not None:
                        into[value] = None

    def lacks_old_row(self, change: ChangeEvent) -> bool:
        """Whether a change is an update that should carry the old row and does not.

        The row may have left a document that still shows it. PostgreSQL logs such updates under a replica identity
        weaker than FULL. New partitions begin with one.
        """
        return change.before is None and change.op == "u" and change.table in self._need_before


def _values(image: Image, lookup: Lookup, change: ChangeEvent) -> Key | None:
    """Returns the link's values in an image, as text. None if one is NULL, because NULL links to no row."""
    values = []
    for column, base in zip(lookup.columns, lookup.types, strict=True):
        try:
            value = image[column]
        except KeyError:
            raise Fatal(
                f"a change event lacks the column {column!r}, which links {change.table} to its root",
                where=str(change.table),
                why="excluded by the connector or the publication, or renamed",
                hint="syncer check",
            ) from None
        if value is None:
            return None
        values.append(text(value, base))
    return tuple(values)


def text(value: Any, base: str) -> str:
    """Returns an event's value as PostgreSQL text of its type.

    It expects the connector's handling modes that `syncer check` requires. base: `Column.base`.
    Raises Fatal for an encoding that does not preserve the row's value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and base in _WERE_INTEGERS:
        return str(value)
    if isinstance(value, str):
        return _TEXT.get(base, str)(value)
    raise Fatal(
        f"a change event encodes a value of type {base} as {type(value).__name__}",
        why="the connector's handling modes (decimal, time, binary) are not what the syncer needs",
        hint="syncer check",
    )


def _date(value: str) -> str:
    return _timestamp(value).removesuffix("Z")


def _timestamp(value: str) -> str:
    """Converts ISO years, such as `-0043-03-15Z`, `0000-01-01Z` and `+20240-01-01Z`. Their year 0 is 1 BC."""
    if value in _BEYOND:
        return _BEYOND[value]
    if value.startswith(("-", "0000-")):
        year, rest = value.removeprefix("-").split("-", 1)
        return f"{int(year) + 1:04}-{rest.removesuffix('Z')} BC"
    return value.removeprefix("+")


_WERE_INTEGERS = frozenset({"smallint", "integer", "bigint", "oid", "numeric", "text", "character varying"})
"""Types whose events carry JSON integers. `numeric` and text columns have them in events that are older than the
column's change from an integer type. No handling mode of the connector encodes these two types as integers."""
_BEYOND = {
    "+5877611-06-21Z": "infinity",
    "-5877611-06-21Z": "infinity",  # before Debezium 3.7
    "-5877611-06-22Z": "-infinity",
    "+292278994-08-16T23:00:00Z": "infinity",
    "-292275055-05-16T23:00:00Z": "-infinity",
    "+294247-01-10T04:00:25.2Z": "infinity",  # before Debezium 3.7
    "-290308-12-21T19:59:27.6Z": "-infinity",  # before Debezium 3.7
    "infinity": "infinity",  # timestamptz
    "-infinity": "-infinity",
    "POSITIVE_INFINITY": "Infinity",
    "NEGATIVE_INFINITY": "-Infinity",
}
"""Debezium's texts for infinite dates, times and numbers, as Debezium 3.7.0 writes them."""
_TEXT: Mapping[str, Callable[[str], str]] = {
    "bytea": lambda value: "\\x" + value,
    "date": _date,
    "numeric": lambda value: _BEYOND.get(value, value),
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": _timestamp,
}
"""By type: converts Debezium's text (`isostring` times, `hex` binaries, `string` decimals) to PostgreSQL's."""
