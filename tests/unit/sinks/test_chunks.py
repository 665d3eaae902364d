"""Requests of limited size, and the ids that a store of partials cannot have."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from syncer.ports import StoredPartial
from syncer.sinks.chunks import chunks, pages
from syncer.sinks.partials import separate


@given(st.lists(st.integers(0, 20)), st.integers(1, 50), st.one_of(st.none(), st.integers(1, 5)))
def test_chunks_keep_all_items_and_are_as_large_as_allowed(
    items: list[int], max_size: int, max_items: int | None
) -> None:
    found = list(chunks(items, lambda item: item, max_size=lambda: max_size, max_items=max_items))
    assert [item for chunk in found for item in chunk] == items
    most = max_items or len(items)
    assert all(0 < len(chunk) <= most for chunk in found)
    assert all(sum(chunk) <= max_size or len(chunk) == 1 for chunk in found)
    for chunk, following in pairwise(found):
        assert len(chunk) == most or sum(chunk) + following[0] > max_size


def test_a_limit_that_falls_meanwhile_is_used_for_the_next_chunk() -> None:
    limit = 4
    found = chunks([1] * 8, lambda item: item, max_size=lambda: limit)
    assert next(found) == [1] * 4
    limit = 2
    assert list(found) == [[1, 1], [1, 1]]


@given(st.lists(st.integers()), st.integers(1, 5))
def test_pages_keep_all_items(items: list[int], length: int) -> None:
    found = list(pages(items, length))
    assert [item for page in found for item in page] == items
    assert all(len(page) == length for page in found[:-1]) and all(0 < len(page) <= length for page in found)


def test_partials_of_an_impossible_id_count_as_stored() -> None:
    possible, impossible = separate(7, {"a": {"0": b"x"}, "": {"0": None, "1": b"y"}}, lambda id: "" if id else "empty")
    assert possible == ["a"]
    assert impossible == {"": {"0": StoredPartial(7, None), "1": StoredPartial(7, b"y")}}
