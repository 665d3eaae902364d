"""What documents rest on besides rows: relations, their columns and partitions, types. Pure.

Some commands change what a table says without a change event. Each leaves a trace in the catalog; two shapes
tell whether one came between, also while nothing ran. What is only added (a column, a label, an empty
partition) or altered beside the values (an index, a default, statistics) is no such change.

What was altered and altered back looks as before, and rows may have changed, or documents been rendered, in
between. So the shape holds the version of each row of the catalog that such a command writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

TableState = Mapping[str, Any]
"""JSON values, as `postgres/table_state.py` reads them:

    form: FORM
    tables: TABLE: {oid, file, publication,
                    named: version of its name and schema,
                    identity: the index that is the replica identity, and its version,
                    columns: {NAME: [number, type, modifier, its name, version, what is beside the values]},
                    leaves: {OID: [file, versions of the links to its parents, identity]}}
                            (of partitioned tables only)
    labels: {OID: [label, version]} of enums, and {OID: [attributes, versions]} of composite types
    render: a digest of the statement that renders. The same declaration gives another one if its names mean
            other columns, or a table has another primary key
    weak: the last time that a replica identity was seen too weak (`Registry.note_weak`)

A version is the transaction that wrote the catalog's row last.
"""
FORM = 3
"""Of the above. One that was noted in another form is no measure: everything is rendered once."""


class Alteration(NamedTuple):
    """What was altered so that documents may be wrong."""

    why: str
    unseen: bool
    """Transactions that were open then may have changed rows without an event."""


def compare(noted: TableState, now: TableState, filled: AbstractSet[str]) -> Alteration | None:
    """What calls for every document to be rendered again; None if nothing does. filled: the leaves (oids)
    that hold anything now."""
    if noted.get("form") != now["form"]:
        return Alteration("what was noted of the tables is of another version of the syncer", unseen=True)
    unseen = any(  # of any table: the first reason that is found may be of another one
        is_["publication"] != noted["tables"].get(table, is_)["publication"] for table, is_ in now["tables"].items()
    )
    if types := retyped(noted, now):
        return Alteration("; ".join(types), unseen)
    for table, is_ in now["tables"].items():
        was = noted["tables"].get(table)
        if was is None:
            continue
        if why := next(_table(was, is_, filled), ""):
            return Alteration(f"{table}: {why}", unseen)
        if was["publication"] != is_["publication"]:
            why = "it left the publication and joined it again, or what is published of it was altered"
            return Alteration(f"{table}: {why}", unseen=True)
    for oid, (label, version) in now["labels"].items():
        was_label, was_version = noted["labels"].get(oid, (label, version))
        if was_label != label:
            return Alteration(f"{was_label!r} is called {label!r} now", unseen=False)
        if was_version != version:
            return Alteration(f"{label!r} was altered, and altered back", unseen=False)
    if noted.get("weak", "") != now.get("weak", ""):
        return Alteration("a replica identity was too weak for a while", unseen=False)
    if noted.get("render") != now.get("render"):
        why = "names of the declaration mean other columns, or a table has another primary key"
        return Alteration(why, unseen=False)
    return None


def retyped(noted: TableState, now: TableState) -> list[str]:
    """The columns whose type is another one, with both types, for people."""
    found: list[str] = []
    if noted.get("form") != now["form"]:
        return found
    for table, is_ in now["tables"].items():
        was = noted["tables"].get(table, {"columns": {}})["columns"]
        for name, (_, *type_, type_name, _, _) in is_["columns"].items():
            if name in was and type_ != was[name][1:3]:
                found.append(f"{table}.{name} was {was[name][3]}, and is {type_name}")
    return found


def _table(was: TableState, is_: TableState, filled: AbstractSet[str]) -> Iterator[str]:
    if was["oid"] != is_["oid"]:
        yield "it is another table of that name (dropped and created, or renamed)"
    if was["named"] != is_["named"]:
        yield "it had another name or schema for a while (or has another owner)"
    if was["identity"] != is_["identity"]:
        yield "its replica identity was altered"
    rewritten = was["file"] != is_["file"] or was["leaves"] != is_["leaves"]
    for name, (number, _, _, _, version, beside) in is_["columns"].items():
        if name not in was["columns"]:
            continue
        was_number, _, _, _, was_version, was_beside = was["columns"][name]
        if number != was_number:
            yield f"column {name} is another one now (dropped and created, or renamed)"
        elif version != was_version and rewritten:
            yield f"column {name} was altered and the table rewritten"
        elif version != was_version and beside == was_beside:
            yield f"column {name} was altered, and altered back"
    yield from _leaves(was["leaves"], is_["leaves"], filled)


def _leaves(was: TableState, are: TableState, filled: AbstractSet[str]) -> Iterator[str]:
    for leaf, (file, links, identity) in was.items():
        if leaf not in are:
            yield "a partition was detached or dropped"
            continue
        is_file, is_links, is_identity = are[leaf]
        if file != is_file:
            yield "a partition was truncated or rewritten"
        if links != is_links:
            yield "a partition was detached and attached again"
        if identity != is_identity:
            yield "a partition's replica identity was altered"
    if filled & (are.keys() - was.keys()):
        yield "a partition with rows was attached"
