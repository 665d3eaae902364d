"""Stage 4, resolve: finds the dirty roots of the table uses that a change touches. Pure; the view runs the look-ups.

A changed row has the columns that link it to its parent. This module uses their values before *and* after the change.
So if a row moves to another parent, or is deleted, the root that it leaves becomes dirty, too. If the column is an
array of keys, each element counts. The rest of the path up to the root is looked up in the snapshot, for all events of
a batch together. A row of a grouped root has the columns of the group expressions. PostgreSQL computes its groups from
their values before and after the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from syncer.declaration.compile import Compiled, Lookup, TableUse
from syncer.declaration.compiled import LIST
from syncer.errors import Fatal
from syncer.events import ChangeEvent, Image, Key, Values
from syncer.pipeline.route import differs


@dataclass(slots=True)
class Dirty:
    """The effect of a batch: dirty roots by key, values to look up, and whether all roots are dirty."""

    keys: dict[Key, None] = field(default_factory=dict)
    lookups: dict[Lookup, dict[Values, None]] = field(default_factory=dict)
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
        self._root = compiled.root_lookup
        self._need_before = frozenset(p.table for p in compiled.table_uses if p.needs_before)

    def __call__(self, change: ChangeEvent, uses: Sequence[TableUse], dirty: Dirty) -> None:
        """Adds the roots that a change dirties through these table uses.

        Raises Fatal if the event lacks a linking column.
        """
        for use in uses:
            if change.op == "t":
                dirty.all_roots |= not use.is_root
                dirty.root_gone |= use.is_root
                continue
            lookup = use.lookup or self._root
            for values in _links(change, use, lookup):
                if lookup.sql is None:
                    dirty.keys[cast(Key, values)] = None  # a key has no NULL
                else:
                    dirty.lookups.setdefault(lookup, {})[values] = None

    def lacks_old_row(self, change: ChangeEvent) -> bool:
        """Whether a change is an update that should carry the old row and does not.

        The row may have left a document that still shows it. PostgreSQL logs such updates under a replica identity
        weaker than FULL. New partitions begin with one.
        """
        return change.before is None and change.op == "u" and change.table in self._need_before


def _links(change: ChangeEvent, use: TableUse, lookup: Lookup) -> Iterable[Values]:
    """Returns the link values of both images. Raises Fatal as `link_values`."""
    before, after = (link_values(image, lookup, change) if image else [] for image in (change.before, change.after))
    if before and after and lookup.array and _changes_only(lookup.array, change, use):
        return dict.fromkeys(before).keys() ^ dict.fromkeys(after).keys()
    return [*before, *after]


def _changes_only(array: str, change: ChangeEvent, use: TableUse) -> bool:
    """Whether an update changes nothing but an array, which only this link uses. The roots of kept elements are clean.

    They showed the row before and show it now, with the same values.
    """
    before, after = change.before or {}, change.after or {}
    certain = change.op == "u" and use.moves_only and use.used <= use.comparable
    return certain and not any(differs(before, after, column) for column in use.used if column != array)


def link_values(image: Image, lookup: Lookup, change: ChangeEvent) -> list[Values]:
    """Returns the link values in an image, as text: those of the row, or one for each element of an array.

    Returns an empty list if a value is NULL, because NULL links to no row. NULL elements are left out.
    A NULL is kept if the look-up accepts it (`Lookup.nulls`).

    Raises Fatal if the image lacks one of the columns, or encodes a value in a form that the syncer cannot read.
    """
    values: list[str | None] = []
    place, elements = 0, None
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
        if value is None and not lookup.nulls:
            return []
        if base.endswith(LIST):
            place, elements = len(values), [*_elements(value, base.removesuffix(LIST))]
            values.append(None)
        else:
            values.append(None if value is None else text(value, base))
    if elements is None:
        return [tuple(values)]
    return [(*values[:place], one, *values[place + 1 :]) for one in dict.fromkeys(elements)]


def _elements(value: Any, base: str) -> Iterator[str]:
    """Yields the elements of an array as text, without NULLs. base: the type family of an element.

    Raises Fatal if the value is no array.
    """
    if not isinstance(value, list):
        raise Fatal(
            f"a change event encodes an array of {base} as {type(value).__name__}",
            why="the event is older than the type of the column, or the connector does not read it as an array",
            hint="syncer check",
        )
    for one in value:
        if one is not None and not isinstance(one, list):  # an array of several dimensions links to nothing
            yield text(one, base)


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
        why="the connector's handling modes for decimals, times and binary values are not the required ones",
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
