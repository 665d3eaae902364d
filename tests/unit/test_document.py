"""Documents: their ids, and the upserts and deletes of rendered rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncer import document
from syncer.document import Batch, Row


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_an_id_converts_back_to_its_key(parts: list[str]) -> None:
    key = tuple(parts)
    assert document.parse_id(document.document_id(key), len(key)) == key


@given(st.lists(st.text("a|\\"), min_size=2, max_size=2), st.lists(st.text("a|\\"), min_size=2, max_size=2))
def test_no_two_keys_share_an_id(left: list[str], right: list[str]) -> None:
    same = document.document_id(tuple(left)) == document.document_id(tuple(right))
    assert same == (left == right)


def test_an_id_with_another_number_of_columns_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 columns"):
        document.parse_id("a|b", 3)


def test_hazard_25_ids_of_equal_keys_with_other_texts_are_deleted() -> None:
    batch = document.batch([Row("1.0", "1.00", b"{}"), Row("1.00", "1.00", b"{}"), Row("2", None, None)], 9)
    assert batch.upserts == {"1.00": b"{}"}
    assert sorted(batch.deletes) == ["1.0", "2"]


def test_the_document_of_a_row_that_where_excludes_is_deleted() -> None:
    assert document.batch([Row("1", "1", None)], 9).deletes == ["1"]


def test_a_split_batch_keeps_its_version_and_commit_time() -> None:
    whole = document.batch([Row("1", "1", b"{}"), Row("2", "2", b"[]"), Row("3", None, None)], 7, 1700)
    alone, rest = whole.split("1")
    assert (alone, rest) == (Batch(7, {"1": b"{}"}, [], 1700), Batch(7, {"2": b"[]"}, ["3"], 1700))
