"""Comparison of two states of the tables: which alterations require that all documents are rendered again."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from syncer.checks.table_state import FORM, compare

PLAIN: dict[str, Any] = {
    "oid": 1,
    "name_version": "700",
    "file": 11,
    "columns": {
        "total": {"number": 1, "type": 23, "modifier": -1, "type_name": "integer", "version": "700", "other": "t"}
    },
    "publication": "5 700",
    "identity": "",
    "leaves": {},
}
TREE: dict[str, Any] = {
    **PLAIN,
    "oid": 2,
    "file": 0,
    "leaves": {
        "21": {"file": 31, "links": "700", "identity": ""},
        "22": {"file": 32, "links": "700", "identity": ""},
    },
}
BEFORE: dict[str, Any] = {"form": FORM, "tables": {"public.plain": PLAIN, "public.tree": TREE}, "labels": {}}


def altered(path: str, value: object) -> str:
    """Returns the reason that `compare` gives if this one value of the state differs; empty if it gives none."""
    now = deepcopy(BEFORE)
    *places, last = path.split("/")
    place = now["tables"]
    for name in places:
        place = place[name]
    place[last] = value
    found = compare(BEFORE, now, {"21", "22"})
    return found.why if found else ""


def test_unaltered_tables_need_no_render() -> None:
    assert compare(BEFORE, deepcopy(BEFORE), {"21", "22"}) is None


def test_hazard_06_a_table_that_is_only_written_again_renders_nothing() -> None:
    """VACUUM FULL, CLUSTER and REPACK rewrite a table with the same rows. TRUNCATE sends an event."""
    assert altered("public.plain/file", 12) == ""


def test_hazard_06_a_partition_that_is_written_again_may_have_been_truncated() -> None:
    """VACUUM FULL, CLUSTER and REPACK of a partition leave the same trace as TRUNCATE, and cost a render."""
    assert altered("public.tree/leaves/21/file", 41) == "public.tree: a partition was truncated or rewritten"


@pytest.mark.parametrize("other", ["t", "f"])
def test_hazard_06_a_table_written_again_with_another_version_of_a_column(other: str) -> None:
    now = deepcopy(BEFORE)
    now["tables"]["public.plain"]["file"] = 12
    now["tables"]["public.plain"]["columns"]["total"] |= {"version": "701", "other": other}
    found = compare(BEFORE, now, set())
    assert found and found.why == "public.plain: column total was altered and the table rewritten"


def test_a_table_that_an_except_clause_excluded_for_a_while_is_rendered_again() -> None:
    """In PostgreSQL 19 the exclusion is a row of pg_publication_rel. The state holds its id and version."""
    assert "it left the publication and joined it again" in altered("public.plain/publication", "5 700 9 800")


def test_a_table_that_left_the_publication_requires_a_wait_even_if_another_reason_is_found_first() -> None:
    """The first reason may belong to another table, and may not require a wait itself."""
    now = deepcopy(BEFORE)
    now["tables"]["public.plain"]["name_version"] = "701"
    now["tables"]["public.tree"]["publication"] = "5 702"
    found = compare(BEFORE, now, set())
    assert found and found.why.startswith("public.plain: ") and found.unseen
