"""A document is the same whether it is combined from all its buckets or from remembered blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncer.declaration.compiled import CombinedField, SortKey
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.pipeline import combined_blocks
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


def same(history: History, most_bytes: int) -> bool:
    """Changes two documents in turn. Returns whether both always equal the ones that are combined directly."""
    blocks, documents = CombinedBlocks(FIELDS, most_bytes), ({}, {})  # type: tuple[Any, Any]
    for step, changes in enumerate(history):
        parts = documents[step % 2]
        for bucket, part in changes.items():
            parts.pop(bucket, None)
            if part is not None:
                parts[bucket] = part
        if assemble(FIELDS, b"{}", blocks.states(str(step % 2), parts)) != directly(parts):
            return False
    return True


@pytest.mark.parametrize("block", [1, 2, 3])
@settings(max_examples=200)
@given(history=HISTORIES, most_bytes=st.sampled_from([0, 6_000, 12_000, 1 << 20]))
def test_a_document_does_not_depend_on_what_is_remembered(block: int, history: History, most_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combined_blocks, "_BLOCK", block)
        assert same(history, most_bytes)


Merged = list[list[str]]
"""The buckets of each block that was merged, in the order of the merges."""


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> Merged:
    found: Merged = []

    def merge(fields: object, states: Sequence[Sequence[str]]) -> list[str]:
        found.append([one[0] for one in states])
        return []

    monkeypatch.setattr(combined_blocks, "_BLOCK", 64)
    monkeypatch.setattr(combined_blocks, "merge", merge)
    return found


def partials(*buckets: int, version: int = 1) -> dict[str, StoredPartial]:
    return {str(bucket): StoredPartial(version, json.dumps([str(bucket)]).encode()) for bucket in buckets}


def test_only_changed_blocks_are_merged_again(merged: Merged) -> None:
    """The buckets are far apart, as those of a few rows with random ids are."""
    blocks, parts = CombinedBlocks(()), partials(*range(0, 200_000, 1000))
    blocks.states("a", parts)
    assert list(map(len, merged)) == [64, 64, 64, 8] and merged[3][-1] == "199000"
    merged.clear()
    blocks.states("a", parts | {"70000": StoredPartial(2, b'["changed"]')} | partials(300_000))
    assert list(map(len, merged)) == [64, 9] and "changed" in merged[0] and merged[1][-1] == "300000"


def test_a_new_version_of_the_same_partials_merges_nothing(merged: Merged) -> None:
    blocks = CombinedBlocks(())
    blocks.states("a", partials(*range(200)))
    merged.clear()
    blocks.states("a", partials(*range(200), version=2) | {ROOT_PARTIAL: StoredPartial(2, b"{}")})
    assert not merged


def test_what_is_remembered_does_not_change_what_was_returned_before() -> None:
    """Two threads may combine a document from the same remembered one."""
    blocks = CombinedBlocks(FIELDS)
    states = [json.dumps([str(row), *[None] * 11]).encode() for row in range(6)]
    first = blocks._combine(None, {str(n): states[n] for n in range(6)})
    found = [blocks._combine(first, {str(n): states[0 if n == changed else n] for n in range(6)}) for changed in (1, 4)]
    counts = [json.loads(assemble(FIELDS, b"{}", one.states))["n"] for one in (first, *found)]
    assert counts == [15, 14, 11]


def remembered(blocks: CombinedBlocks) -> list[str]:
    assert blocks._found.currsize == sum(one.size for one in blocks._found.values()) <= blocks._found.maxsize
    return list(blocks._found)


def test_it_forgets_the_documents_that_were_combined_longest_ago() -> None:
    blocks = CombinedBlocks((), most_bytes=10_000)
    for id in ("a", "b", "c", "a", "d"):
        blocks.states(id, partials(*range(10)))
    assert remembered(blocks) == ["c", "a", "d"]


def test_a_very_large_document_is_not_remembered_and_does_not_displace_others() -> None:
    blocks = CombinedBlocks((), most_bytes=10_000)
    for id, count in (("a", 10), ("b", 10), ("b", 30)):
        blocks.states(id, partials(*range(count)))
    assert remembered(blocks) == ["a"]
    blocks.states("c", {str(bucket): StoredPartial(1, b"[" + b" " * 1000 + b"]") for bucket in range(10)})
    assert remembered(blocks) == ["a"]


COMBINE = CombinedBlocks._combine


def ignores_lost(self: CombinedBlocks, before: Any, found: Mapping[str, bytes]) -> Any:
    known = dict(zip(before.buckets, before.bodies, strict=True)) if before else {}
    return COMBINE(self, before, {**known, **found})


def compares_only_buckets(self: CombinedBlocks, before: Any, found: Mapping[str, bytes]) -> Any:
    return before if before and set(before.buckets) == found.keys() else COMBINE(self, before, found)


def compares_only_bodies(self: CombinedBlocks, before: Any, found: Mapping[str, bytes]) -> Any:
    return before if before and sorted(before.bodies) == sorted(found.values()) else COMBINE(self, before, found)


def appends(self: CombinedBlocks, before: Any, found: Mapping[str, bytes]) -> Any:
    order = [*(before.buckets if before else ()), *found]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combined_blocks, "sorted", lambda names, key: sorted(names, key=order.index), raising=False)
        return COMBINE(self, before, found)


def changes_what_is_remembered(self: CombinedBlocks, before: Any, found: Mapping[str, bytes]) -> Any:
    combined = COMBINE(self, before, found)
    if before:
        before.states[:] = combined.states
    return combined


def bucket(row: int, number: str) -> StoredPartial:
    state = [str(row), number, number, "1", number, f'"{number} of {row}"', number, f'"{number} of {row}"', None, None]
    listed = [[number, str(row), f"[{row}]"]]
    return StoredPartial(1, json.dumps([*state, json.dumps(listed), json.dumps(listed[0])]).encode())


START: dict[str, StoredPartial | None] = {str(n): bucket(n, "1.0") for n in range(0, 12, 2)}
CHANGES: dict[str, History] = {
    "a partial changes": [{"4": bucket(4, "7")}],
    "two partials change places": [{"0": bucket(10, "1.0"), "10": bucket(0, "1.0")}],
    "the sink loses a partial": [{"2": None}],
    "a bucket appears in the middle": [{"3": bucket(3, "1.00")}],
    "a bucket appears before the others": [{"-10": bucket(10, "1.000")}],
    "a bucket appears at the end": [{"100": bucket(100, "1.00")}],
}


def history(changes: History) -> History:
    """Returns the history that makes these changes to the first of the two documents."""
    return [START, START, *(one for change in changes for one in (change, {}))]


@pytest.mark.parametrize("change", CHANGES)
def test_a_document_after_a_change(change: str) -> None:
    assert same(history(CHANGES[change]), 1 << 20)


@pytest.mark.parametrize("weaker", [ignores_lost, compares_only_buckets, compares_only_bodies, appends])
def test_a_weaker_memory_is_detected(weaker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CombinedBlocks, "_combine", weaker)
    assert not all(same(history(changes), 1 << 20) for changes in CHANGES.values())


def test_states_that_are_changed_later_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CombinedBlocks, "_combine", changes_what_is_remembered)
    with pytest.raises(AssertionError):
        test_what_is_remembered_does_not_change_what_was_returned_before()
