"""A document is the same whether it is combined from all its buckets or from remembered blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from syncer.declaration.compiled import CombinedField, SortKey
from syncer.pipeline import combined_blocks
from syncer.pipeline.combine import ROOT_PARTIAL
from syncer.pipeline.combine_states import assemble
from syncer.pipeline.combined_blocks import CombinedBlocks
from syncer.ports import StoredPartial

FIELDS = (
    CombinedField("n", "count", 0),
    CombinedField("total", "sum", 1),
    CombinedField("mean", "avg", 2),
    CombinedField("low", "min", 4),
    CombinedField("high", "max", 6),
    CombinedField("all", "bool_and", 8),
    CombinedField("any", "bool_or", 9),
    CombinedField("list", "list", 10, (SortKey(descending=True), SortKey()), 3),
    CombinedField("one", "first", 11, (SortKey(nulls_first=True), SortKey())),
)
NUMBERS = [None, "0", "0.00", "1", "1.0", "1.00", "-2.5", "9", "10.125", "NaN", "Infinity", "-Infinity", "1e300"]
BOOLEANS = [None, "true", "false"]
Parts = Mapping[str, StoredPartial]
History = list[dict[str, StoredPartial | None]]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The state of a bucket. Equal numbers have several texts, and the shown text names the bucket's row."""
    number, row = draw(st.sampled_from(NUMBERS)), draw(st.integers(0, 99))
    shown = None if number is None else f'"{number} of {row}"'
    rows = sorted({draw(st.sampled_from(["1", "2", "3"])) for _ in range(2)}, reverse=True)
    listed = [[value, str(row), f"[{row}]"] for value in rows]
    state = [str(row), number, number, str(row), number, shown, number, shown]
    state += [draw(st.sampled_from(BOOLEANS)), draw(st.sampled_from(BOOLEANS))]
    state += [json.dumps(listed), json.dumps(listed[-1])]
    return json.dumps(state).encode()


BUCKETS = st.sampled_from([str(n) for n in (-5, -4, -1, 0, 1, 2, 3, 4, 7, 8, 9, 1000)] + [ROOT_PARTIAL])
PARTIALS = st.none() | st.builds(StoredPartial, st.integers(1, 3), st.none() | bodies())
"""None: the sink lost the partial. A body of None: a remembered delete."""
HISTORIES = st.lists(st.dictionaries(BUCKETS, PARTIALS, max_size=9), min_size=1, max_size=6)


def directly(parts: Parts) -> bytes:
    buckets = sorted((int(bucket), part.body) for bucket, part in parts.items() if bucket != ROOT_PARTIAL)
    return assemble(FIELDS, b"{}", [json.loads(body) for _, body in buckets if body is not None])


def same(history: History, most: int) -> bool:
    """Changes two documents in turn. Returns whether both always equal the ones that are combined directly."""
    blocks, documents = CombinedBlocks(FIELDS, most), ({}, {})  # type: tuple[Any, Any]
    for step, changes in enumerate(history):
        parts = documents[step % 2]
        for bucket, part in changes.items():
            parts.pop(bucket, None)
            if part is not None:
                parts[bucket] = part
        if assemble(FIELDS, b"{}", blocks.states(str(step % 2), parts)) != directly(parts):
            return False
    return True


@settings(max_examples=500)
@given(HISTORIES, st.sampled_from([0, 6, 12, 100]))
def test_a_document_does_not_depend_on_what_is_remembered(history: History, most: int) -> None:
    assert same(history, most)


def test_only_changed_blocks_are_merged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    merged: list[int] = []
    monkeypatch.setattr(combined_blocks, "merge", lambda fields, states: merged.append(len(states)))
    blocks, parts = CombinedBlocks(()), {str(bucket): StoredPartial(1, b"[]") for bucket in range(100)}
    blocks.states("a", parts)
    assert merged == [2] * 50
    blocks.states("a", parts | {"7": StoredPartial(2, b"[]"), "100": StoredPartial(2, b"[]")})
    assert sorted(merged[50:]) == [1, 2]


def test_it_forgets_the_documents_that_were_combined_longest_ago() -> None:
    blocks = CombinedBlocks((), most=30)
    parts = {str(bucket): StoredPartial(1, b"[]") for bucket in range(10)}
    for id in ("a", "b", "c", "a", "d"):
        blocks.states(id, parts)
    assert list(blocks._found) == ["c", "a", "d"] and blocks._size == 30


def ignores_lost(self: CombinedBlocks, before: Any, parts: Parts) -> Any:
    return BLOCKS(self, before, {**(before.parts if before else {}), **parts})


def compares_versions(self: CombinedBlocks, before: Any, parts: Parts) -> Any:
    known = before.parts if before else {}
    same = {bucket for bucket, part in parts.items() if bucket in known and known[bucket].version == part.version}
    return BLOCKS(self, before, {bucket: known[bucket] if bucket in same else part for bucket, part in parts.items()})


def in_any_order(self: CombinedBlocks, number: int, parts: Parts) -> Any:
    return list(reversed(STATES(self, number, parts)))


def only_positive(self: CombinedBlocks, number: int, parts: Parts) -> Any:
    return STATES(self, max(number, 0), parts)


BLOCKS, STATES = CombinedBlocks._blocks, CombinedBlocks._states


@pytest.mark.parametrize(
    ("method", "weaker"),
    [
        ("_blocks", ignores_lost),
        ("_blocks", compares_versions),
        ("_states", in_any_order),
        ("_states", only_positive),
    ],
)
def test_a_weaker_memory_is_detected(method: str, weaker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CombinedBlocks, method, weaker)
    find(
        HISTORIES, lambda history: not same(history, 100), settings=settings(max_examples=3000, phases=[Phase.generate])
    )
