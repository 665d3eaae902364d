"""What documents rest on besides rows: relations, their columns and partitions, types. Pure.

Some commands change what a table says without a change event. Each leaves a trace in the catalog; two shapes
tell whether one came between, also while nothing ran. What is only added (a column, a label, an empty
partition) or altered beside the values (an index, a default, statistics) is no such change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

Shape = Mapping[str, Any]
"""JSON values, as `rows/shape.py` reads them:

    tables: TABLE: {oid, publication, file, columns: {NAME: [number, type, modifier, row version]},
                    leaves: {OID: file}}      (leaves of partitioned tables only)
    labels: {OID: label} of enums, and {OID: attributes} of composite types
"""


class Altered(NamedTuple):
    """What was altered so that documents may be wrong."""

    why: str
    unseen: bool
    """Transactions that were open then may have changed rows without an event."""


def compare(noted: Shape, now: Shape, filled: Collection[str]) -> Altered | None:
    """What calls for every document to be rendered again; None if nothing does. filled: the leaves (oids)
    that hold anything now."""
    for table, is_ in now["tables"].items():
        was = noted["tables"].get(table)
        if was is None:
            continue
        if why := next(_table(was, is_, filled), ""):
            return Altered(f"{table}: {why}", unseen=was["publication"] != is_["publication"])
        if was["publication"] != is_["publication"]:
            return Altered(f"{table}: it left the publication and joined it again", unseen=True)
    for oid, label in now["labels"].items():
        if noted["labels"].get(oid, label) != label:
            return Altered(f"{noted['labels'][oid]!r} is called {label!r} now", unseen=False)
    return None


def _table(was: Shape, is_: Shape, filled: Collection[str]) -> Iterator[str]:
    if was["oid"] != is_["oid"]:
        yield "it is another table of that name (dropped and created, or renamed)"
    rewritten = was["file"] != is_["file"] or was["leaves"] != is_["leaves"]
    for name, (number, *type_, version) in is_["columns"].items():
        if name not in was["columns"]:
            continue
        was_number, *was_type, was_version = was["columns"][name]
        if (number, type_) != (was_number, was_type):
            yield f"column {name} is another one now"
        if rewritten and version != was_version:
            yield f"column {name} was altered and the table rewritten"
    for leaf, file in was["leaves"].items():
        if leaf not in is_["leaves"]:
            yield "a partition was detached or dropped"
        elif is_["leaves"][leaf] != file:
            yield "a partition was truncated or rewritten"
    if filled & (is_["leaves"].keys() - was["leaves"].keys()):
        yield "a partition with rows was attached"
