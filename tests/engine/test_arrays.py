"""Links by the elements of arrays: for any read model and any history, every document equals the rows in the end.

The expected documents come from a walk over the rows in plain Python (`oracle.py`), as SQL's `= ANY` decides. Each
weaker rule dirties too few documents, or links other rows. The histories must detect it, or they prove nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import strategies as st

from syncer.declaration import array_links, compile, scope
from syncer.declaration.node import Node
from syncer.errors import SyncerError
from syncer.events import ChangeEvent
from syncer.pipeline import resolve
from syncer.pipeline.resolve import Resolve
from tests.engine.arbitrary import Case
from tests.engine.arrays import KEPT_ELEMENTS, array_case, array_changes, change, kept_elements, rows
from tests.engine.play import Play
from tests.engine.statements import Action, Statement, Step, Transaction
from tests.engine.test_engine import History, run


class ArrayHistory(History):
    @staticmethod
    def before(case: Any, data: Any) -> Sequence[Step]:
        return rows(data.draw(st.randoms(use_true_random=False), "before"))

    @staticmethod
    def actions(case: Case) -> st.SearchStrategy[Action]:
        return array_changes()

    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        return array_case(data.draw(st.randoms(use_true_random=False), "case")), Play


@pytest.mark.timeout(7200)  # the long profile, and to shrink an example takes time
def test_every_document_with_links_by_arrays_equals_the_rows(dsn: str) -> None:
    ArrayHistory.dsn = dsn
    run(ArrayHistory, 8)


# -- weaker rules -----------------------------------------------------------------------------------------------


def _after_only() -> AbstractContextManager[Any]:
    """The elements that an update removes are not looked up."""
    collect = Resolve.__call__

    def weaker(self: Resolve, change: ChangeEvent, *arguments: Any) -> None:
        collect(self, change._replace(before=None) if change.op == "u" else change, *arguments)

    return patch.object(Resolve, "__call__", weaker)


def _first_element() -> AbstractContextManager[Any]:
    """A row of an event is linked by the first element only."""
    found = resolve.link_values
    return patch.object(resolve, "link_values", lambda *arguments: found(*arguments)[:1])


def _changed_elements_always() -> AbstractContextManager[Any]:
    """The roots of kept elements are clean, also if another column changed."""
    return patch.object(resolve, "_changes_only", lambda *_: True)


def _unused() -> AbstractContextManager[Any]:
    """A changed array is no change of the rows that it is linked to."""
    used = compile._table_use

    def table_use(node: Node, *more: Any) -> Any:
        use = used(node, *more)
        arrays = {name for name in use.used if node.table.columns[name].base == "array"}
        return replace(use, used=use.used - arrays, comparable=use.comparable - arrays)

    return patch.object(compile, "_table_use", table_use)


def _comparable() -> AbstractContextManager[Any]:
    """The roots of kept elements are clean, also if the document shows the array."""

    def mark(root: Node) -> None:
        for node in root.walk():
            node.only_linked = {name for name, column in node.table.columns.items() if column.base == "array"}
            node.moves_only = True

    return patch.object(compile, "_mark_arrays", mark)


def _of_two_links() -> AbstractContextManager[Any]:
    """The roots of kept elements are clean, also if another link uses the array."""
    used = compile._table_use

    def table_use(node: Node, *more: Any) -> Any:
        return replace(used(node, *more), moves_only=bool(node.only_linked))

    return patch.object(compile, "_table_use", table_use)


def _whole() -> AbstractContextManager[Any]:
    """A row is linked if the array has this element alone."""
    contains = array_links.contains
    return patch.object(array_links, "contains", lambda *c: contains(*c).replace("@>", "<@"))


def _once_for_each_element() -> AbstractContextManager[Any]:
    """The elements at the end of a path are not made distinct."""
    linked_values = scope.linked_values

    def weaker(*arguments: Any) -> tuple[str, str]:
        links, matched = linked_values(*arguments)
        return links.replace("SELECT DISTINCT pg_catalog.unnest", "SELECT pg_catalog.unnest"), matched

    return patch.object(scope, "linked_values", weaker)


def _unguarded() -> AbstractContextManager[Any]:
    """A key is cast to the type of the elements, whatever its size."""
    return patch.object(array_links, "_BOUNDS", {})


def _all_dimensions() -> AbstractContextManager[Any]:
    """The elements of an array of several dimensions are linked, although events may lack them."""
    return patch.object(array_links, "_DIMENSIONS", "pg_catalog.abs(1) + 0 * pg_catalog.cardinality")


WEAKER: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "only the after image is looked up": _after_only,
    "only the first element is looked up": _first_element,
    "kept elements are clean whatever changed": _changed_elements_always,
    "kept elements are clean although the array is shown": _comparable,
    "kept elements are clean although another link uses the array": _of_two_links,
    "an array is not used": _unused,
    "an array of this element alone": _whole,
    "a row occurs once for each element": _once_for_each_element,
    "a key is cast without care": _unguarded,
    "arrays of several dimensions link": _all_dimensions,
}


def short_histories(dsn: str) -> None:
    """Compares all documents after each transaction, so that no later change can hide a stale document."""
    for shown in (True, False):
        play_each(dsn, kept_elements(shown=shown), [[Statement(sql)] for sql in KEPT_ELEMENTS])
    for seed in range(12):
        dice = random.Random(seed)
        play_each(dsn, array_case(dice), [rows(dice), *(change(dice) for _ in range(20))])


def play_each(dsn: str, case: Case, transactions: Sequence[list[Statement]]) -> None:
    play = Play(dsn, case)
    try:
        for statements in transactions:
            play.act(Transaction(tuple(statements), "COMMIT"))
            play.drain()
            assert play.written() == play.expected(), statements
            assert not play.refused()
    finally:
        play.close()


def test_every_document_equals_the_rows_after_each_transaction(dsn: str) -> None:
    short_histories(dsn)


@pytest.mark.parametrize("rule", WEAKER)
def test_a_weaker_rule_is_detected(dsn: str, rule: str) -> None:
    with WEAKER[rule](), pytest.raises((AssertionError, SyncerError)):
        short_histories(dsn)
