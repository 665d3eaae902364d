"""The index of a list that is linked through other relations: which indexes provide it, and the statement for one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncer.checks.list_index import list_index
from syncer.declaration.catalog import Index, SortColumn, Table
from tests.harness.catalogs import table

POSTS = table("posts", "id bigint key, author_id bigint, lang text, at timestamptz")
NEWEST = SortColumn("id", descending=True, nulls_first=True)
LATEST = SortColumn("at", descending=True, nulls_first=True)


def index(*columns: str | SortColumn, partial: bool = False) -> Index:
    order = tuple(SortColumn(column) if isinstance(column, str) else column for column in columns)
    return Index("i", tuple(column.name for column in order), False, partial, order=order)


def posts(*indexes: Index, **changes: object) -> Table:
    return replace(POSTS, indexes=(*POSTS.indexes, *indexes), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (index("author_id", "id"), [NEWEST]),
        (index("author_id", NEWEST), [NEWEST]),
        (index("author_id", "at", "id", "lang"), [LATEST, NEWEST]),
        (index("author_id", LATEST, "id"), [LATEST, SortColumn("id")]),
        (index("author_id", "id"), [SortColumn("author_id"), NEWEST]),
    ],
)
def test_an_index_provides_the_order_forwards_or_backwards(found: Index, order: list[SortColumn]) -> None:
    assert not list(list_index("m", posts(found), ["author_id"], order))


@pytest.mark.parametrize(
    "found",
    [
        index("author_id"),
        index("id", "author_id"),
        index("author_id", "at", "id"),
        index("author_id", "id", partial=True),
        index("author_id", SortColumn("id", nulls_first=True)),
        Index("hash", ("author_id", "id"), False, False),
    ],
)
def test_the_statement_creates_an_index_that_provides_the_order(found: Index) -> None:
    [finding] = list_index("m", posts(found), ["author_id"], [NEWEST])
    assert (finding.severity, finding.code) == ("warning", "no-index")
    assert finding.what == "public.posts has no index on author_id, id"
    assert finding.fix == "CREATE INDEX CONCURRENTLY ON public.posts (author_id, id);"


def test_the_statement_has_the_directions_that_differ() -> None:
    [finding] = list_index("m", posts(), ["author_id"], [LATEST, SortColumn("id")])
    assert finding.fix.endswith("(author_id, at, id DESC);")
    [finding] = list_index("m", posts(), ["author_id"], [SortColumn("at", descending=True), SortColumn("id")])
    assert finding.fix.endswith("(author_id, at NULLS FIRST, id DESC);"), "read backwards"
    [finding] = list_index("m", posts(kind="partitioned"), ["author_id"], [NEWEST])
    assert "CONCURRENTLY" not in finding.fix


def test_an_order_by_more_than_columns_of_the_table_has_no_index() -> None:
    [finding] = list_index("m", posts(index("author_id", "id")), ["author_id"], [])
    assert finding.severity == "warning" and "no index can provide the order" in finding.what
    [finding] = list_index("m", posts(rows_estimate=9), ["author_id"], [])
    assert finding.severity == "note"
