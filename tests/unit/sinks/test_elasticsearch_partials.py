"""The document of partials in Elasticsearch, and answers that cannot be provoked reliably. No server."""

from __future__ import annotations

from typing import Any

import pytest

from syncer.clock import version
from syncer.declaration.partial_keys import ROOT
from syncer.errors import Fatal, Retry
from syncer.sinks.elasticsearch.partial_documents import Written, merged, written
from syncer.sinks.target import Target

TARGET = Target("elasticsearch:things", "things", "0123456789abcdef", 2, 1)
DONE: dict[str, Any] = {"status": 200}


def answer(*items: dict[str, Any]) -> dict[str, Any]:
    return {"items": [{"index": item} for item in items]}


def failed(status: int, kind: str, reason: str) -> dict[str, Any]:
    return {"status": status, "error": {"type": kind, "reason": reason}}


def part(version: int, body: str | None) -> dict[str, Any]:
    return {"v": version, "b": body}


def test_newer_partials_are_added() -> None:
    first = merged({}, version(2, 5), {"0": b"a", "1": b"b"}, 1.0)
    assert first == {"epoch": 2, "parts": {"0": part(version(2, 5), "a"), "1": part(version(2, 5), "b")}}
    assert merged(first, version(2, 5), {"0": b"c"}, 2.0) is None
    assert merged(first, version(2, 4), {"0": b"c", "2": b"d"}, 2.0) == {
        "epoch": 2,
        "parts": first["parts"] | {"2": part(version(2, 4), "d")},
    }
    assert len(first["parts"]) == 2, "the stored document is not changed"


def test_partials_of_an_earlier_epoch_are_dropped() -> None:
    old = merged({}, version(1, 9), {"0": b"a"}, 1.0)
    assert old is not None
    assert merged(old, version(2, 1), {"1": b"b"}, 1.0) == {"epoch": 2, "parts": {"1": part(version(2, 1), "b")}}


def test_only_a_deleted_root_has_a_time_of_death() -> None:
    document: Any = {}
    expected = [(None, None), (b"root", None), (None, 3000), (b"root", None)]
    for clock, (body, dead_at) in enumerate(expected, 1):
        parts = {str(ROOT): body} if clock > 1 else {"0": b"a"}
        document = merged(document, version(2, clock), parts, float(clock))
        assert document.get("dead_at") == dead_at


@pytest.mark.parametrize(
    ("item", "in_time"),
    [
        (failed(429, "es_rejected_execution_exception", "busy"), False),
        (failed(429, "circuit_breaking_exception", "busy"), False),
        (failed(503, "unavailable_shards_exception", "busy"), True),
        (failed(403, "cluster_block_exception", "busy"), True),
    ],
)
def test_documents_that_were_not_written_are_left_out(item: dict[str, Any], in_time: bool) -> None:
    found = written(["a", "b"], answer(item, DONE), TARGET)
    assert found.reason.endswith("busy")
    assert found == Written(["b"], [], found.reason, in_time)


def test_conflicts_are_written_again() -> None:
    conflict = failed(409, "version_conflict_engine_exception", "required seqNo [7]")
    assert written(["a", "b"], answer(conflict, DONE), TARGET) == Written(["b"], ["a"], "", True)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (failed(404, "index_not_found_exception", "no such index"), "the index is missing"),
        (failed(400, "document_parsing_exception", "odd"), "refuses the partials of document 'a'"),
    ],
)
def test_other_failures_stop_the_read_model(item: dict[str, Any], message: str) -> None:
    with pytest.raises(Fatal, match=message) as caught:
        written(["a"], answer(item), TARGET)
    assert caught.value.hint == "syncer resync things"


def test_an_answer_with_another_number_of_items_is_repeated() -> None:
    with pytest.raises(Retry):
        written(["a", "b"], answer(DONE), TARGET)
