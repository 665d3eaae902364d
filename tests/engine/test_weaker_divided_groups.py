"""Rules for grouped roots with partials that look sufficient and are not. One history must detect each of them.

`tests/simulation/weaker/divided_groups.py` has the weaker rules that need several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from syncer.declaration.compiled import Lookup, TableUse
from syncer.declaration.grouped_partials import GroupedPartials
from syncer.declaration.partial_keys import ROOT, ROOT_PARTIAL
from syncer.pipeline.resolve import Resolve
from syncer.ports import StoredPartials
from tests.engine.divided_groups import DividedGroups
from tests.engine.groups import Join
from tests.engine.partial_play import MemoryPartialSink
from tests.engine.schema import Schema
from tests.engine.test_weaker_partials import (
    FORGET,
    JOINED,
    REFUSE,
    ROOTS,
    after_image_only,
    divided,
    play,
)

CASE = DividedGroups(
    Schema((ROOTS, divided("integer"), JOINED)),
    "b",
    (("p", "t.p"), ("coalesce(s, false)", "coalesce(t.s, false)")),
    nulls=True,
    fields=(
        ("sum(q)", "sum(t.q)"),
        ("max(r)", "max(t.r)"),
        ("count(distinct r)", "count(DISTINCT t.r)"),
        ("last(k order by r)", "(array_agg(t.k ORDER BY t.r DESC, t.k DESC))[1]"),
        ("sum(j.i.q) filter (where j.i.p)", "sum(i.q) filter (where i.p)"),
        ("j.p", "(array_agg(j.p))[1]"),
    ),
    where=("j.p is distinct from 'hidden'", "j.p is distinct from 'hidden'"),
    join=Join("a", "k", "p"),
    identities=dict.fromkeys("abc", "FULL"),
    nested=Join("c", "k", "k"),
    by="r",
    size=2,
)
"""Rows of `b` by `p` and `s`. They are joined to `a` (`j`), and this to `c` (`i`)."""
SHOWN = replace(CASE, where=None)
"""Only the document reads `j`, and only an aggregate reads `i`."""
TIMED = replace(CASE, schema=Schema((ROOTS, divided("timestamptz"), JOINED)), size="1h")
BEGIN = (
    "INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, 'hidden')",
    "INSERT INTO c VALUES (1, true, 1), (2, false, 2)",
    "INSERT INTO b VALUES (1, 1, {0}, 1, true, 0), (2, 1, {3}, 1.00, true, 1), (3, 1, {-3}, 5, NULL, 0)",
    "INSERT INTO b VALUES (4, 2, {2}, 2.5, true, 0), (5, 3, {1}, 7, true, 1), (6, NULL, {1}, 1, true, NULL)",
    "INSERT INTO b VALUES (7, 1, {-1}, 4, true, 0)",
)
HISTORY = (
    "UPDATE b SET r = {5} WHERE k = 1",
    "UPDATE b SET q = 9 WHERE k = 2",
    "UPDATE b SET s = false WHERE k = 7",
    "UPDATE c SET q = q + 1",
    "UPDATE c SET p = NOT p",
    "UPDATE a SET p = 'z' WHERE k = 1",
    "UPDATE a SET p = 'hidden' WHERE k = 2",
    FORGET,
    "UPDATE a SET p = 'y' WHERE k = 2",
    "DELETE FROM b WHERE k = 4",
    FORGET,
    "INSERT INTO b VALUES (4, 2, {7}, 2, true, 0)",
    "UPDATE b SET p = 2 WHERE k = 1",
    REFUSE,
    "UPDATE b SET q = 3 WHERE k = 2",
    "UPDATE b SET p = NULL WHERE k IN (3, 7)",
    "DELETE FROM a WHERE k = 2",
    "UPDATE b SET k = 9, r = {-4} WHERE k = 2",
    "INSERT INTO a VALUES (2, 'hidden')",
    "TRUNCATE b",
    "UPDATE a SET p = 'again' WHERE k = 2",
    "INSERT INTO b VALUES (1, 1, {0}, 1, true, 0), (2, 2, {9}, 1.00, true, 1), (3, 1, {4}, 1.0, true, 1)",
    "TRUNCATE a",
)


def is_equal(dsn: str, case: DividedGroups = CASE) -> bool:
    return play(dsn, case, BEGIN, HISTORY)


@pytest.mark.parametrize("case", [CASE, SHOWN, TIMED], ids=["integers", "shown", "times"])
def test_the_history_ends_with_equal_documents(case: DividedGroups, dsn: str) -> None:
    assert is_equal(dsn, case)


# -- weaker rules -------------------------------------------------------------------------------------------


def found(path: str, condition: str) -> Callable[[GroupedPartials], Iterator[TableUse]]:
    """Returns look-ups that find only some partials of the rows at a path. condition: over the bucket `b`."""

    def uses(self: GroupedPartials) -> Iterator[TableUse]:
        for use in USES(self):
            yield replace(use, lookup=some(use.lookup)) if use.path == path else use

    def some(lookup: Lookup | None) -> Lookup:
        assert lookup is not None
        return replace(lookup, sql=f"SELECT k0, k1, b FROM ({lookup.sql}) q (k0, k1, b) WHERE {condition}")

    return uses


def exists_by_its_first_bucket(self: GroupedPartials, *arguments: Any) -> Any:
    document = DOCUMENT(self, *arguments)
    rows = "SELECT FROM public.b WHERE p = k.k0 AND coalesce(s, false) = k.k1 AND r BETWEEN 0 AND 1"
    return document._replace(sql=f"SELECT doc FROM ({document.sql}) x WHERE EXISTS ({rows})")


Partials = Mapping[str, Mapping[str, bytes | None]]


def root_partial_once(self: MemoryPartialSink, version: int, partials: Partials, timeout: float) -> StoredPartials:
    known = self.store.partials
    left = {
        id: {
            bucket: body for bucket, body in parts.items() if bucket != ROOT_PARTIAL or bucket not in known.get(id, {})
        }
        for id, parts in partials.items()
    }
    return WRITE(self, version, left, timeout)


def without_empty(self: MemoryPartialSink, version: int, partials: Partials, timeout: float) -> StoredPartials:
    found = WRITE(self, version, partials, timeout)
    for id, parts in partials.items():
        for bucket, body in parts.items():
            if bucket != ROOT_PARTIAL and body and orjson.loads(body)[0] == "0":
                self.store.partials[id].pop(bucket, None)
    return found


USES, DOCUMENT, WRITE = GroupedPartials._uses, GroupedPartials._root_document, MemoryPartialSink.write_partials
WEAKER: dict[str, tuple[object, str, Any]] = {
    "only the new bucket and the new group are dirty": (Resolve, "__call__", after_image_only),
    "a row makes only its bucket dirty": (GroupedPartials, "_uses", found("", f"b <> '{ROOT}'")),
    "a row makes only the root partial dirty": (GroupedPartials, "_uses", found("", f"b = '{ROOT}'")),
    "a filter's row makes only the root partial dirty": (GroupedPartials, "_uses", found("j", f"b = '{ROOT}'")),
    "a filter's row makes only buckets dirty": (GroupedPartials, "_uses", found("j", f"b <> '{ROOT}'")),
    "an aggregate's row makes only the root partial dirty": (GroupedPartials, "_uses", found("j.i", f"b = '{ROOT}'")),
    "a group exists while its first bucket has rows": (GroupedPartials, "_root_document", exists_by_its_first_bucket),
    "the root partial is written once": (MemoryPartialSink, "write_partials", root_partial_once),
    "an empty partial is removed": (MemoryPartialSink, "write_partials", without_empty),
}


@pytest.mark.parametrize("rule", WEAKER)
def test_a_weaker_rule_is_detected(rule: str, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, weaker = WEAKER[rule]
    monkeypatch.setattr(owner, attribute, weaker)
    assert not is_equal(dsn)


def test_a_shown_row_that_makes_no_partial_dirty_is_detected(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupedPartials, "_uses", found("j", "false"))
    assert not is_equal(dsn, SHOWN)
