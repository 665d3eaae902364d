"""Builds the hidden document that holds all partials of one root, and reads the answers to its writes. No I/O.

epoch      the epoch of all partials
parts      BUCKET: {v: version, b: body, null for a remembered delete}
dead_at    the time of the last write, while the root partial is a delete; in milliseconds since the Unix epoch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from syncer.clock import split_version
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import Outcome
from syncer.errors import Fatal
from syncer.ports import StoredPartial
from syncer.sinks.elasticsearch import bulk
from syncer.sinks.elasticsearch.client import reason_of
from syncer.sinks.target import Target

Json = dict[str, Any]


class Stored(NamedTuple):
    """A document of the index, and the condition under which it may be replaced. Both 0: there is none."""

    source: Json
    seq_no: int = 0
    primary_term: int = 0


class Written(NamedTuple):
    """The answer to one request."""

    written: list[str]
    conflicts: list[str]
    """Other processes wrote the document meanwhile."""
    reason: str
    """Why documents are in neither list."""
    in_time: bool
    """Whether the server had time for all of them (no 429)."""


def merged(source: Json, version: int, parts: Mapping[str, bytes | None], now: float) -> Json | None:
    """Returns the document with these partials, or None if it has the same or newer versions of all.

    source: the stored document, or an empty one. It is not changed. now: seconds since the Unix epoch. No I/O.
    """
    epoch, _ = split_version(version)
    known: Json = source["parts"] if source.get("epoch") == epoch else {}  # earlier epochs had another declaration
    newer = {
        bucket: {"v": version, "b": None if body is None else body.decode()}
        for bucket, body in parts.items()
        if bucket not in known or known[bucket]["v"] < version
    }
    if not newer:
        return None
    document: Json = {"epoch": epoch, "parts": known | newer}
    root = document["parts"].get(ROOT_PARTIAL)
    if root is not None and root["b"] is None:
        document["dead_at"] = round(now * 1000)
    return document


def action(id: str, known: Stored) -> bytes:
    """Returns the line that writes a document only if it is still the known one."""
    if not known.source:
        return orjson.dumps({"create": {"_id": id}}) + b"\n"
    condition = {"if_seq_no": known.seq_no, "if_primary_term": known.primary_term}
    return orjson.dumps({"index": {"_id": id, **condition}}) + b"\n"


def removal(id: str, seq_no: int, primary_term: int) -> bytes:
    """Returns the line that removes a document only if it is still the known one."""
    return orjson.dumps({"delete": {"_id": id, "if_seq_no": seq_no, "if_primary_term": primary_term}}) + b"\n"


def written(ids: Sequence[str], answer: Json, target: Target) -> Written:
    """Returns what the answer to a request says about its documents, in the order of the ids.

    Raises Fatal for a missing index, and for a document that the server refuses. No I/O.
    """
    done, conflicts, out, in_time = list[str](), list[str](), Outcome(), True
    items = answer.get("items", [])
    if len(items) != len(ids):
        raise bulk.wrong_number(len(items), len(ids), target)
    for id, item in zip(ids, items, strict=True):
        [result] = item.values()
        if (error := result.get("error")) is None:
            done.append(id)
        elif result["status"] == 409:
            conflicts.append(id)
        else:
            bulk.failed(id, result["status"], error["type"], reason_of(error), target, out)
            in_time = in_time and result["status"] != 429
    for rejected in out.rejected:
        what = f"Elasticsearch refuses the partials of document {rejected.id!r}"
        raise Fatal(what, where=target.name, why=rejected.reason, hint=target.resync)
    return Written(done, conflicts, out.retry_reason, in_time)


def parts_of(source: Json) -> dict[str, StoredPartial]:
    return {
        bucket: StoredPartial(part["v"], None if part["b"] is None else part["b"].encode())
        for bucket, part in source["parts"].items()
    }
