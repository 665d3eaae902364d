"""Two shapes of the tables, compared: what calls for all documents to be rendered again."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from syncer.checks.table_state import FORM, compare

PLAIN: dict[str, Any] = {
    "oid": 1,
    "named": "700",
    "file": 11,
    "columns": {"total": [1, 23, -1, "integer", "700", "t"]},
    "publication": ["5 700", ""],
    "identity": "",
    "leaves": {},
}
TREE: dict[str, Any] = {
    **PLAIN,
    "oid": 2,
    "file": 0,
    "leaves": {"21": [31, "700", None], "22": [32, "700", None]},
}
NOTED: dict[str, Any] = {"form": FORM, "tables": {"public.plain": PLAIN, "public.tree": TREE}, "labels": {}}


def altered(path: str, value: object) -> str:
    """Why, if this one place of the shape is another."""
    now = deepcopy(NOTED)
    *places, last = path.split("/")
    place = now["tables"]
    for name in places:
        place = place[int(name) if isinstance(place, list) else name]
    place[int(last) if isinstance(place, list) else last] = value
    found = compare(NOTED, now, {"21", "22"})
    return found.why if found else ""


def test_unaltered_tables_need_no_render() -> None:
    assert compare(NOTED, deepcopy(NOTED), {"21", "22"}) is None


def test_hazard_06_a_table_that_is_only_written_again_renders_nothing() -> None:
    """VACUUM FULL, CLUSTER and REPACK write a table again with the same rows. Its TRUNCATE has an event."""
    assert altered("public.plain/file", 12) == ""


def test_hazard_06_a_partition_that_is_written_again_may_have_been_truncated() -> None:
    """VACUUM FULL, CLUSTER and REPACK of a partition look the same, and cost a render."""
    assert altered("public.tree/leaves/21/0", 41) == "public.tree: a partition was truncated or rewritten"


@pytest.mark.parametrize("beside", ["t", "f"])
def test_hazard_06_a_table_written_again_with_another_version_of_a_column(beside: str) -> None:
    now = deepcopy(NOTED)
    now["tables"]["public.plain"] |= {"file": 12, "columns": {"total": [1, 23, -1, "integer", "701", beside]}}
    found = compare(NOTED, now, set())
    assert found and found.why == "public.plain: column total was altered and the table rewritten"


def test_a_table_that_an_except_clause_excluded_for_a_while_is_rendered_again() -> None:
    """PostgreSQL 19: the exclusion is a row of pg_publication_rel, which the shape holds with its version."""
    assert "it left the publication and joined it again" in altered("public.plain/publication", ["5 700 9 800", ""])


def test_a_table_that_left_the_publication_requires_a_wait_even_if_another_reason_is_found_first() -> None:
    """The reason that is found first may be of another table, and needs no wait by itself."""
    now = deepcopy(NOTED)
    now["tables"]["public.plain"]["named"] = "701"
    now["tables"]["public.tree"]["publication"] = ["5 702", ""]
    found = compare(NOTED, now, set())
    assert found and found.why.startswith("public.plain: ") and found.unseen
