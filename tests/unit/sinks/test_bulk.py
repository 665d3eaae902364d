"""The versions of remembered deletes are read from the conflicts of a bulk request."""

from __future__ import annotations

from typing import Any

import pytest

from syncer.document import Batch, Outcome
from syncer.errors import Fatal, Retry
from syncer.sinks.elasticsearch import bulk
from syncer.sinks.target import Target

TARGET = Target("elasticsearch:things", "things", "hash", 1, 1)
GUARD = {"update": {"status": 404}}


def probe(*ids: str) -> bulk.Chunk:
    [chunk] = bulk.chunks(Batch(bulk.PROBE, {}, list(ids)), lambda: 1000, 1000, Outcome())
    return chunk


def item(status: int, kind: str = "", reason: str = "") -> dict[str, Any]:
    return {"delete": {"status": status} | ({"error": {"type": kind, "reason": reason}} if kind else {})}


def conflict(found: int) -> dict[str, Any]:
    reason = f"[a]: version conflict, current version [{found}] is higher or equal to the one provided [1]"
    return item(409, "version_conflict_engine_exception", reason)


def test_a_conflict_has_the_present_version() -> None:
    answer = {"errors": True, "items": [GUARD, conflict((1 << 60) + 1), item(404), conflict(bulk.PROBE)]}
    assert bulk.present_versions(probe("a", "b", "c"), answer, TARGET) == {"a": (1 << 60) + 1}


def test_versions_of_a_busy_server_are_retried() -> None:
    answer = {"errors": True, "items": [GUARD, conflict(9), item(429, "es_rejected_execution_exception", "busy")]}
    with pytest.raises(Retry, match="cannot read the versions") as caught:
        bulk.present_versions(probe("a", "b"), answer, TARGET)
    assert "busy" in caught.value.why


def test_versions_of_a_missing_index_are_fatal() -> None:
    answer = {"errors": True, "items": [GUARD, item(404, "index_not_found_exception", "no such index [x]")]}
    with pytest.raises(Fatal, match="the index is missing"):
        bulk.present_versions(probe("a"), answer, TARGET)


def test_an_answer_with_another_number_of_items_is_retried() -> None:
    with pytest.raises(Retry, match="1 answer to 2 documents"):
        bulk.present_versions(probe("a", "b"), {"errors": False, "items": [GUARD, item(404)]}, TARGET)
