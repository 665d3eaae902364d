"""Lists that are merged from the lists of buckets equal the list that one sort of all rows returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from syncer.declaration.compiled import CombinedField, SortKey
from syncer.pipeline import combine_states
from syncer.pipeline.combine_states import assemble

NUMBERS = [None, "NaN", "Infinity", "-Infinity", "0", "-0", "1", "1.00", "10", "9", "-2.5", "1e300", "0." + "1" * 40]
UUIDS = [None, *(str(UUID(int=n << 96)) for n in (0, 1, 9, 10, 255, 1 << 31))]
KEYS = [SortKey(uuid, down, first) for uuid in (False, True) for down in (False, True) for first in (False, True)]
Row = tuple[str | None, ...]


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[SortKey, ...], int, list[tuple[int, Row]]]:
    """An order, a limit, and rows with their buckets. The last value of a row is unique, as a primary key is."""
    order = (*draw(st.lists(st.sampled_from(KEYS), max_size=2)), SortKey())
    values = [st.sampled_from(UUIDS if key.is_uuid else NUMBERS) for key in order[:-1]]
    rows = draw(st.lists(st.tuples(st.integers(0, 3), *values), max_size=12))
    return order, draw(st.integers(1, 4)), [(row[0], (*row[1:], str(n))) for n, row in enumerate(rows)]


def in_order(order: Sequence[SortKey], rows: Sequence[Row]) -> list[Row]:
    """Sorts as PostgreSQL does, with one stable sort for each value: the last one first."""
    found = list(rows)
    for at, key in reversed(list(enumerate(order))):
        nulls = [row for row in found if row[at] is None]
        there = sorted([row for row in found if row[at] is not None], key=partial(_by, at, key), reverse=key.descending)
        found = nulls + there if key.nulls_first else there + nulls
    return found


def _by(at: int, key: SortKey, row: Row) -> Any:
    if key.is_uuid:
        return UUID(row[at] or "").bytes
    value = Decimal(row[at] or "")
    return (1, Decimal(0)) if value.is_nan() else (0, value)


def merged(order: tuple[SortKey, ...], limit: int, rows: Sequence[tuple[int, Row]], kept: int) -> str:
    """Returns the document. kept: the number of rows that each bucket has at most."""
    fields = [CombinedField("list", "list", 0, order, limit), CombinedField("one", "first", 1, order)]
    buckets = []
    for bucket in range(4):
        own = in_order(order, [row for number, row in rows if number == bucket])
        states = [[*row, f"[{row[-1]}]"] for row in own]
        shown = [json.dumps(states[:kept]), json.dumps(states[0]) if states else None]
        buckets.append(shown)
    return assemble(fields, b"{}", buckets).decode()


def expected(order: tuple[SortKey, ...], limit: int, rows: Sequence[tuple[int, Row]]) -> str:
    elements = [str(row[-1]) for row in in_order(order, [row for _, row in rows])]
    return f'{{"list":[{",".join(elements[:limit])}],"one":{elements[0] if elements else "null"}}}'


@settings(max_examples=600, deadline=None)
@given(cases())
def test_merged_lists(case: tuple[tuple[SortKey, ...], int, list[tuple[int, Row]]]) -> None:
    order, limit, rows = case
    assert merged(order, limit, rows, limit) == expected(order, limit, rows)


def differs(case: tuple[tuple[SortKey, ...], int, list[tuple[int, Row]]], less: int = 0) -> bool:
    order, limit, rows = case
    return merged(order, limit, rows, limit - less) != expected(order, limit, rows)


def test_a_bucket_that_keeps_one_row_less_is_detected() -> None:
    find(cases(), partial(differs, less=1), settings=settings(max_examples=2000, deadline=None))


@pytest.mark.parametrize(
    "weaker",
    [
        lambda right, text, key: (text is None, text or ""),
        lambda right, text, key: right(text, key._replace(descending=False)),
        lambda right, text, key: right(text, key._replace(nulls_first=False)),
        lambda right, text, key: right(text if text != "NaN" else "-Infinity", key),
    ],
    ids=["numbers as texts", "never descending", "NULLs always last", "NaN is the lowest number"],
)
def test_a_wrong_comparison_is_detected(weaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine_states, "_sort_value", partial(weaker, combine_states._sort_value))
    find(cases(), differs, settings=settings(max_examples=3000, deadline=None))
