"""Stage 3, resolve: from the touched places to the dirty roots. Pure; the look-ups are run by the view.

A changed row is linked to its root through columns that it holds itself: those of its link to its parent.
Their values before *and* after the change count, so that a row which moves (or goes) dirties the root it
leaves. The rest of the way up is looked up in the snapshot, all events of a batch together.
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
    """What a batch asks for: roots by key, values to look up, and whether everything is to be done again."""

    keys: dict[Key, None] = field(default_factory=dict)
    lookups: dict[Lookup, dict[Key, None]] = field(default_factory=dict)
    all_roots: bool = False
    """A table below the root was truncated: every root may show it."""
    root_gone: bool = False
    """The root table was truncated: documents without a row have to go."""
    untold: set[int | None] = field(default_factory=set)
    """The transactions of updates whose old rows are not known."""

    def __bool__(self) -> bool:
        return bool(self.keys or self.lookups or self.all_roots or self.root_gone or self.untold)


class Resolve:
    """Collects the dirty roots of a batch."""

    def __init__(self, compiled: Compiled) -> None:
        self._root = Lookup(compiled.key, compiled.key_types, None)
        self._need_before = frozenset(p.table for p in compiled.occurrences if p.needs_before)

    def __call__(self, change: ChangeEvent, places: Sequence[TableUse], dirty: Dirty) -> None:
        """Add what the change dirties at these places. Raises Fatal if the event lacks what it needs."""
        for place in places:
            if change.op == "t":
                dirty.all_roots |= place.lookup is not None
                dirty.root_gone |= place.lookup is None
                continue
            lookup = place.lookup or self._root
            into = dirty.keys if lookup.sql is None else dirty.lookups.setdefault(lookup, {})
            for image in (change.before, change.after):
                if image is not None:
                    value = _values(image, lookup, change)
                    if value is not None:
                        into[value] = None

    def untold(self, change: ChangeEvent) -> bool:
        """Whether it is an update without the old row that it should tell: the document that the row left may
        still show it. It was logged under a replica identity weaker than FULL, as new partitions have it."""
        return change.before is None and change.op == "u" and change.table in self._need_before


def _values(image: Image, lookup: Lookup, change: ChangeEvent) -> Key | None:
    """The link's values in an image, as text; None if one is NULL, because NULL links to nothing."""
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
    """An event's value as PostgreSQL text of the type, under the handling modes that `check` insists on.

    base: `Column.base`. Raises Fatal for an encoding that would not give the row's own value back.
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
    """`-0043-03-15Z`, `0000-01-01Z`, `+20240-01-01Z`: ISO years have signs, and a zero, which is 1 BC."""
    if value in _BEYOND:
        return _BEYOND[value]
    if value.startswith(("-", "0000-")):
        year, rest = value.removeprefix("-").split("-", 1)
        return f"{int(year) + 1:04}-{rest.removesuffix('Z')} BC"
    return value.removeprefix("+")


_WERE_INTEGERS = frozenset({"smallint", "integer", "bigint", "oid", "numeric", "text", "character varying"})
"""Types whose events have JSON integers. `numeric` and texts have them in events from before the column was
widened from an integer. No handling mode of the connector encodes them so."""
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
"""Debezium's texts of what is no number of days, microseconds or digits (seen with 3.7.0)."""
_TEXT: Mapping[str, Callable[[str], str]] = {
    "bytea": lambda value: "\\x" + value,
    "date": _date,
    "numeric": lambda value: _BEYOND.get(value, value),
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": _timestamp,
}
"""By type: from Debezium's text (`isostring` times, `hex` binaries, `string` decimals) to PostgreSQL's."""
