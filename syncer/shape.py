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

Shape = Mapping[str, Any]
"""JSON values, as `rows/shape.py` reads them:

    form: FORM
    tables: TABLE: {oid, file, publication,
                    named: version of its name and schema,
                    identity: the index that is the replica identity, and its version,
                    columns: {NAME: [number, type, modifier, version, what is beside the values]},
                    leaves: {OID: [file, versions of the links to its parents, identity]}}
                            (of partitioned tables only)
    labels: {OID: [label, version]} of enums, and {OID: [attributes, versions]} of composite types

A version is the transaction that wrote the catalog's row last.
"""
FORM = 2
"""Of the above. One that was noted in another form is no measure: everything is rendered once."""


class Altered(NamedTuple):
    """What was altered so that documents may be wrong."""

    why: str
    unseen: bool
    """Transactions that were open then may have changed rows without an event."""


def compare(noted: Shape, now: Shape, filled: AbstractSet[str]) -> Altered | None:
    """What calls for every document to be rendered again; None if nothing does. filled: the leaves (oids)
    that hold anything now."""
    if noted.get("form") != now["form"]:
        return Altered("what was noted of the tables is of another version of the syncer", unseen=True)
    for table, is_ in now["tables"].items():
        was = noted["tables"].get(table)
        if was is None:
            continue
        if why := next(_table(was, is_, filled), ""):
            return Altered(f"{table}: {why}", unseen=was["publication"] != is_["publication"])
        if was["publication"] != is_["publication"]:
            why = "it left the publication and joined it again, or what is published of it was altered"
            return Altered(f"{table}: {why}", unseen=True)
    for oid, (label, version) in now["labels"].items():
        was_label, was_version = noted["labels"].get(oid, (label, version))
        if was_label != label:
            return Altered(f"{was_label!r} is called {label!r} now", unseen=False)
        if was_version != version:
            return Altered(f"{label!r} was altered, and altered back", unseen=False)
    return None


def _table(was: Shape, is_: Shape, filled: AbstractSet[str]) -> Iterator[str]:
    if was["oid"] != is_["oid"]:
        yield "it is another table of that name (dropped and created, or renamed)"
    if was["named"] != is_["named"]:
        yield "it had another name or schema for a while (or has another owner)"
    if was["identity"] != is_["identity"]:
        yield "its replica identity was altered"
    rewritten = was["file"] != is_["file"] or was["leaves"] != is_["leaves"]
    for name, (number, *type_, version, beside) in is_["columns"].items():
        if name not in was["columns"]:
            continue
        was_number, *was_type, was_version, was_beside = was["columns"][name]
        if (number, type_) != (was_number, was_type):
            yield f"column {name} is another one now"
        elif version != was_version and rewritten:
            yield f"column {name} was altered and the table rewritten"
        elif version != was_version and beside == was_beside:
            yield f"column {name} was altered, and altered back"
    yield from _leaves(was["leaves"], is_["leaves"], filled)


def _leaves(was: Shape, are: Shape, filled: AbstractSet[str]) -> Iterator[str]:
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
