"""For any tree and any history, every path of ancestors equals the rows in the end.

The histories move, delete and insert nodes in interleaved transactions, make cycles, and truncate. Each weaker rule
dirties too few documents. The histories must detect it, or they prove nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from syncer.declaration import ancestors_sql, compile
from syncer.declaration.node import Node
from syncer.events import ChangeEvent
from syncer.pipeline.resolve import Resolve
from tests.engine.arbitrary import Case
from tests.engine.play import Play
from tests.engine.statements import Action, Step, Transaction
from tests.engine.test_engine import History
from tests.engine.trees import change, five_nodes, moves, tree_case


class TreeHistory(History):
    """A history of a tree."""

    @staticmethod
    def before(case: Any, data: Any) -> Sequence[Step]:
        return five_nodes(data.draw(st.randoms(use_true_random=False), "before"))

    @staticmethod
    def actions(case: Case) -> st.SearchStrategy[Action]:
        return st.one_of(moves(), moves(), moves(), super(TreeHistory, TreeHistory).actions(case))

    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        return tree_case(data.draw(st.randoms(use_true_random=False), "case")), Play


@pytest.mark.timeout(7200)  # the long profile, and to shrink an example takes time
def test_every_path_of_ancestors_equals_the_rows(dsn: str) -> None:
    TreeHistory.dsn = dsn
    chosen = settings(
        max_examples=settings().max_examples // 5,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(TreeHistory, settings=chosen)


# -- weaker rules -------------------------------------------------------------------------------------------


def _levels(count: int) -> Callable[..., AbstractContextManager[Any]]:
    """The look-up goes down `count` levels only, whatever the limit is."""

    def rows_below(node: Node, values: Any) -> Any:
        assert node.climb
        bounded = replace(node.climb, limit=min(count, node.climb.limit))
        with patch.object(node, "climb", bounded):
            return ancestors_sql.rows_below(node, values)

    return lambda: patch.object(compile, "rows_below", rows_below)


def _step_unused() -> AbstractContextManager[Any]:
    """A changed parent is no change of a path."""
    used = compile._table_use

    def table_use(node: Node, *more: Any) -> Any:
        use = used(node, *more)
        return replace(use, used=use.used - {"p"}, comparable=use.comparable - {"p"}) if use.ancestors else use

    return patch.object(compile, "_table_use", table_use)


def _after_only() -> AbstractContextManager[Any]:
    """The key of a deleted row is not looked up."""
    collect = Resolve.__call__

    def resolve(self: Resolve, change: ChangeEvent, uses: Any, dirty: Any) -> None:
        ancestors = [use for use in uses if use.ancestors]
        collect(self, change, [use for use in uses if not use.ancestors], dirty)
        collect(self, change._replace(before=None), ancestors, dirty)

    return patch.object(Resolve, "__call__", resolve)


WEAKER = {
    "only the rows directly below a changed row are dirty": _levels(1),
    "the look-up goes down two levels": _levels(2),
    "a move dirties the moved row only": _step_unused,
    "a deleted row dirties no path": _after_only,
}


def short_histories(dsn: str) -> None:
    """Compares all documents after each transaction, so that no later change can hide a stale document."""
    for seed in range(10):
        dice = random.Random(seed)
        play = Play(dsn, tree_case(dice))
        try:
            for step in range(30):
                play.act(Transaction(tuple(five_nodes(dice) if step == 0 else change(dice)), "COMMIT"))
                play.drain()
                assert play.written() == play.expected()
        finally:
            play.close()


def test_every_path_equals_the_rows_after_each_transaction(dsn: str) -> None:
    short_histories(dsn)


@pytest.mark.parametrize("rule", WEAKER)
def test_a_weaker_rule_is_detected(dsn: str, rule: str) -> None:
    with WEAKER[rule](), pytest.raises(AssertionError):
        short_histories(dsn)
