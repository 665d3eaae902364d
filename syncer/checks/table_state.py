"""Detects that tables were altered without a change event, so that documents may be wrong. Pure.

A document depends on more than rows: on tables, columns, partitions, types and the publication. Some commands change
what a query returns, and send no change event. Each of them leaves a trace in the system catalogs. `compare` finds this
trace between two states, even if the command ran while the syncer was stopped.

Additions do not count (a column, an enum label, an empty partition). Nor do alterations that affect no values (an
index, a default, statistics).

A table that was altered and altered back has the same content as before. In between, rows may have changed without an
event, or documents may have been rendered. So the state also holds the version of each catalog row that such a command
writes: the transaction that wrote the row last (`xmin`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, TypedDict

TableState = Mapping[str, Any]
"""The state of a read model's tables, as JSON. `postgres/table_state.py` reads it:

    form: FORM
    tables: {TABLE: RelationState}
    labels: {OID: TypeState} of enum labels and of composite types
    render: a digest of the render statement. The same declaration gives another one if its names now mean other
            columns, or if a table has another primary key
    weak: a token for the last time that a replica identity was detected as too weak (`Registry.record_weak`)
"""
FORM = 4
"""The version of this format. A state in another format cannot be compared, so all documents are rendered once."""


class ColumnState(TypedDict):
    """A column that the read model uses."""

    number: int
    type: int
    """The type's oid."""
    modifier: int
    type_name: str
    """Type and modifier, for people."""
    version: str
    other: str
    """Properties that do not affect values: NOT NULL, identity, statistics target, storage, privileges, default."""


class LeafState(TypedDict):
    """A partition that holds rows."""

    file: int
    """Its `relfilenode`. TRUNCATE and rewrites change it."""
    links: str
    """The versions of the links from the root to this partition."""
    identity: str


class RelationState(TypedDict):
    """A table that the read model uses."""

    oid: int
    name_version: str
    """The version of its name and schema."""
    file: int
    columns: dict[str, ColumnState]
    publication: str
    """Ids and versions of the publication and of the table's membership; empty if it is no member."""
    identity: str
    """Id and version of the index that is the replica identity; empty if none is."""
    leaves: dict[str, LeafState]
    """By oid; only of partitioned tables."""


class TypeState(TypedDict):
    """A label of an enum type, or all attributes of a composite type."""

    text: str
    version: str


class Alteration(NamedTuple):
    """The reason why documents may be wrong."""

    why: str
    unseen: bool
    """Whether transactions that were open then may have changed rows without a change event."""


def compare(before: TableState, now: TableState, filled: AbstractSet[str]) -> Alteration | None:
    """Returns why every document has to be rendered again; None if none has to be.

    before: the state when the documents were rendered.
    filled: the oids of the partitions that hold rows now.
    """
    if before.get("form") != now["form"]:
        return Alteration("another version of the syncer saved the state of the tables", unseen=True)
    unseen = any(  # of any table: the first reason that is found may belong to another one
        is_["publication"] != before["tables"].get(table, is_)["publication"] for table, is_ in now["tables"].items()
    )
    if types := retyped(before, now):
        return Alteration("; ".join(types), unseen)
    for table, is_ in now["tables"].items():
        was = before["tables"].get(table)
        if was is None:
            continue
        if why := next(_table(was, is_, filled), ""):
            return Alteration(f"{table}: {why}", unseen)
        if was["publication"] != is_["publication"]:
            why = "it left the publication and joined it again, or the publication was altered"
            return Alteration(f"{table}: {why}", unseen=True)
    if why := next(_labels(before["labels"], now["labels"]), ""):
        return Alteration(why, unseen=False)
    if before.get("weak", "") != now.get("weak", ""):
        return Alteration("a replica identity was too weak for a while", unseen=False)
    if before.get("render") != now.get("render"):
        why = "names in the declaration now mean other columns, or a table has another primary key"
        return Alteration(why, unseen=False)
    return None


def retyped(before: TableState, now: TableState) -> list[str]:
    """Returns a sentence for each column whose type was altered, with the old and the new type."""
    if before.get("form") != now["form"]:
        return []
    found: list[str] = []
    for table, is_ in now["tables"].items():
        columns: dict[str, ColumnState] = before["tables"].get(table, {"columns": {}})["columns"]
        for name, column in is_["columns"].items():
            was = columns.get(name)
            if was and (was["type"], was["modifier"]) != (column["type"], column["modifier"]):
                found.append(f"{table}.{name} was {was['type_name']} and is now {column['type_name']}")
    return found


def _table(was: RelationState, is_: RelationState, filled: AbstractSet[str]) -> Iterator[str]:
    if was["oid"] != is_["oid"]:
        yield "another table has this name now (dropped and created, or renamed)"
    if was["name_version"] != is_["name_version"]:
        yield "it had another name or schema for a while (or has another owner)"
    if was["identity"] != is_["identity"]:
        yield "its replica identity was altered"
    rewritten = was["file"] != is_["file"] or was["leaves"] != is_["leaves"]
    for name, column in is_["columns"].items():
        if old := was["columns"].get(name):
            yield from _column(name, old, column, rewritten=rewritten)
    yield from _leaves(was["leaves"], is_["leaves"], filled)


def _column(name: str, was: ColumnState, is_: ColumnState, *, rewritten: bool) -> Iterator[str]:
    if was["number"] != is_["number"]:
        yield f"another column has the name {name} now (dropped and created, or renamed)"
    elif was["version"] != is_["version"] and rewritten:
        yield f"column {name} was altered and the table rewritten"
    elif was["version"] != is_["version"] and was["other"] == is_["other"]:
        yield f"column {name} was altered, and altered back"


def _leaves(was: Mapping[str, LeafState], are: Mapping[str, LeafState], filled: AbstractSet[str]) -> Iterator[str]:
    for oid, leaf in was.items():
        if oid not in are:
            yield "a partition was detached or dropped"
            continue
        if leaf["file"] != are[oid]["file"]:
            yield "a partition was truncated or rewritten"
        if leaf["links"] != are[oid]["links"]:
            yield "a partition was detached and attached again"
        if leaf["identity"] != are[oid]["identity"]:
            yield "a partition's replica identity was altered"
    if filled & (are.keys() - was.keys()):
        yield "a partition with rows was attached"


def _labels(were: Mapping[str, TypeState], are: Mapping[str, TypeState]) -> Iterator[str]:
    for oid, is_ in are.items():
        was = were.get(oid, is_)
        if was["text"] != is_["text"]:
            yield f"{was['text']!r} was renamed to {is_['text']!r}"
        elif was["version"] != is_["version"]:
            yield f"{is_['text']!r} was altered, and altered back"
