"""Rules for partials that look sufficient and are not. One history must detect each of them.

`tests/simulation/weaker/partials.py` has the weaker rules that need several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from syncer.declaration import partial_buckets, partial_states
from syncer.declaration.compiled import CombinedField
from syncer.document import Outcome
from syncer.errors import SyncerError
from syncer.events import ChangeEvent
from syncer.pipeline import combine_states
from syncer.pipeline.change_stages import ChangeStages
from syncer.pipeline.combine import CombiningSink
from syncer.pipeline.combine_states import Column as Items
from syncer.pipeline.combine_states import State
from syncer.pipeline.resolve import Resolve
from syncer.pipeline.route import Route
from tests.engine.divided_groups import DividedGroups
from tests.engine.partial_play import PartialPlay
from tests.engine.partials import Both, Join, Listed, PartialCase
from tests.engine.schema import Column, Schema, Table
from tests.engine.statements import Statement, Transaction
from tests.engine.world import DOCUMENTS

ROOTS = Table("a", (Column("k", "integer", True, key=True), Column("p", "text", True)), ("k",))
JOINED = Table("c", (Column("k", "integer", True, key=True), Column("p", "boolean"), Column("q", "integer")), ("k",))


def divided(type: str) -> Table:
    """Returns the divided table. type: of the bucket column `r`."""
    columns = [Column("k", "integer", True, key=True), Column("p", "integer"), Column("r", type, True)]
    columns += [Column("q", "numeric"), Column("s", "boolean"), Column("t", "integer")]
    return Table("b", tuple(columns), ("k",))


def simple(call: str, order: str = "", kept: str = "") -> Both:
    """Returns an aggregate with the same text in the declaration and in SQL."""
    return Both(f"{call}){kept}", f"{call}{order}){kept}")


ORDER = " ORDER BY e.q DESC NULLS LAST, e.k"
FIELDS = (
    Both("count(e)", "count(*)"),
    *(simple(f"{function}(e.q", ORDER) for function in ("sum", "avg", "min", "max")),
    *(simple(f"{function}(e.r") for function in ("min", "max", "count")),
    *(simple(f"{function}(e.k") for function in ("min", "max")),
    *(simple(f"{function}(e.s") for function in ("bool_and", "bool_or")),
    simple("count(distinct e.r"),
    simple("count(e.k", kept=" filter (where e.s)"),
    Both("last(e.k order by e.r)", "(array_agg(e.k ORDER BY e.r DESC, e.q NULLS FIRST, e.k DESC))[1]"),
    Both("first(e.k order by e.q desc)", "(array_agg(e.k ORDER BY e.q DESC, e.q DESC NULLS LAST, e.k))[1]"),
    Both("sum(e.j.q) filter (where e.j.p)", "sum(j.q) filter (where j.p)"),
)
CASE = PartialCase(
    Schema((ROOTS, divided("integer"), JOINED)),
    (("p", "k"),),
    "r",
    2,
    {"j": Join("j", "e", "c", "k", "t")},
    dict.fromkeys("abc", "FULL"),
    root_where=Both("p <> 'hidden'", "r.p <> 'hidden'"),
    order=(Both("q desc nulls last", "e.q DESC NULLS LAST"),),
    listed=Listed(2, (Both("k", "e.k"), Both("q", "e.q")), is_value=False),
    fields=FIELDS,
    others=(Both("p", "r.p"),),
)
TIMED = replace(CASE, schema=Schema((ROOTS, divided("timestamptz"), JOINED)), size="1h")
FORGET, REFUSE = "the sink forgets deleted documents", "the sink refuses a document"
BEGIN = (
    "INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, 'hidden')",
    "INSERT INTO c VALUES (0, true, 1), (1, false, 2)",
    "INSERT INTO b VALUES (1, 1, {0}, 1, true, 0), (2, 1, {3}, 1.00, false, 1), (3, 1, {-3}, 5, NULL, 0)",
    "INSERT INTO b VALUES (4, 2, {2}, 2.5, true, 0), (5, 3, {1}, 7, true, 1), (6, 1, {1}, NULL, true, NULL)",
    "INSERT INTO b VALUES (7, 1, {-1}, 4, true, 0)",
)
HISTORY = (
    "UPDATE b SET r = {5} WHERE k = 1",
    "UPDATE b SET r = {1} WHERE k = 3",
    "UPDATE b SET q = 9 WHERE k = 2",
    "UPDATE b SET s = false WHERE k IN (2, 7)",
    "UPDATE c SET p = NOT p",
    "UPDATE c SET q = q + 1 WHERE k = 0",
    "UPDATE a SET p = 'y' WHERE k = 3",
    "UPDATE a SET p = 'hidden' WHERE k = 3",
    "DELETE FROM a WHERE k = 2",
    FORGET,
    "INSERT INTO a VALUES (2, 'again')",
    "UPDATE b SET p = 2 WHERE k = 1",
    "UPDATE b SET k = 9, r = {-4} WHERE k = 2",
    REFUSE,
    "UPDATE b SET q = 3 WHERE k = 3",
    "DELETE FROM b WHERE k = 6",
    "TRUNCATE b",
    "INSERT INTO b VALUES (1, 1, {0}, 1, true, 0), (2, 1, {9}, 1.00, true, 1), (3, 1, {4}, 1.0, true, 1)",
)


def play(
    dsn: str,
    case: PartialCase | DividedGroups = CASE,
    begin: Sequence[str] = BEGIN,
    history: Sequence[str] = HISTORY,
) -> bool:
    """Returns whether the documents equal SQL after each step, and dead letters are open only while one differs."""
    playing = PartialPlay(dsn, case)
    try:
        playing.act(Transaction(tuple(Statement(text(sql, case)) for sql in begin), "COMMIT"))
        playing.backfill()
        for step in ("", *history):
            if step == FORGET:
                playing.forget()
            elif step == REFUSE:
                playing.sink.fail(f"{DOCUMENTS}refused")
            elif step:
                playing.act(Transaction((Statement(text(step, case)),), "COMMIT"))
            try:
                playing.drain()
            except (AssertionError, SyncerError):
                return False
            if playing.written() != playing.expected():
                return False
        return True
    finally:
        playing.close()


def text(sql: str, case: PartialCase | DividedGroups) -> str:
    """Returns a statement with values of the bucket column instead of numbers in braces."""
    timed = case.schema["b"].column("r").type == "timestamptz"
    for number in range(-4, 10):
        value = f"timestamptz '1970-01-01 00:10Z' + {number} * interval '40 min'" if timed else str(number)
        sql = sql.replace(f"{{{number}}}", value)
    return sql


@pytest.mark.parametrize("case", [CASE, TIMED], ids=["integers", "times"])
def test_the_history_ends_with_equal_documents(case: PartialCase, dsn: str) -> None:
    assert play(dsn, case)


# -- weaker rules -------------------------------------------------------------------------------------------


def after_image_only(self: Resolve, change: ChangeEvent, *arguments: Any) -> Any:
    return RESOLVE(self, change._replace(before=None) if change.after else change, *arguments)


def ignores_the_bucket_column(self: Route, change: ChangeEvent) -> Any:
    before, after = change.before, change.after
    return [] if before and after and "r" in after and before["r"] != after["r"] else ROUTE(self, change)


def root_partial_only(self: Route, change: ChangeEvent) -> Any:
    return [use for use in ROUTE(self, change) if use.path != "(all partials)"]


def no_sweeps(self: ChangeStages, *arguments: Any, **named: Any) -> None:
    STAGES(self, *arguments, **named)
    self._has_partials = False


def without_order(field: CombinedField, column: Items) -> str | None:
    return IN_ORDER(field._replace(order=()), column)


def ascending(field: CombinedField, column: Items) -> str | None:
    return IN_ORDER(field._replace(order=tuple(key._replace(descending=False) for key in field.order)), column)


def all_are_accepted(self: CombiningSink, stored: Any, timeout: float) -> Outcome:
    out = WRITE(self, stored, timeout)
    return replace(out, rejected=[])


def combined(function: str, merge: Callable[[Sequence[Items]], State]) -> tuple[object, str, Any]:
    functions = combine_states._FUNCTIONS
    return combine_states, "_FUNCTIONS", {**functions, function: functions[function]._replace(merge=merge)}


def last_bucket(columns: Sequence[Items]) -> State:
    return [next((text for text in reversed(column) if text is not None), None) for column in columns[:2]]


def average_of_averages(columns: Sequence[Items]) -> State:
    return [*combine_states._sum(columns), str(len(columns[0]) - columns[0].count(None))]


def null_is_false(columns: Sequence[Items]) -> State:
    return ["true" if all(text == "true" for text in columns[0]) else "false"]


RESOLVE, ROUTE, STAGES = Resolve.__call__, Route.__call__, ChangeStages.__init__
IN_ORDER, WRITE = combine_states._merge_in_order, CombiningSink._write_combined
WEAKER: dict[str, tuple[object, str, Any]] = {
    "only the new bucket is dirty": (Resolve, "__call__", after_image_only),
    "an update of the bucket column alone is ignored": (Route, "__call__", ignores_the_bucket_column),
    "an inserted root makes its root partial dirty only": (Route, "__call__", root_partial_only),
    "no sweep after TRUNCATE": (ChangeStages, "__init__", no_sweeps),
    "min of the last bucket": combined("min", last_bucket),
    "max of the last bucket": combined("max", last_bucket),
    "avg without the counts": combined("avg", average_of_averages),
    "count of buckets": combined("count", lambda columns: [str(len(columns[0]))]),
    "sum of the first bucket": combined("sum", lambda columns: columns[0][:1]),
    "bool_or as bool_and": combined("bool_or", combine_states._FUNCTIONS["bool_and"].merge),
    "bool_and as bool_or": combined("bool_and", combine_states._FUNCTIONS["bool_or"].merge),
    "bool_and of a bucket without values": combined("bool_and", null_is_false),
    "lists are appended": (combine_states, "_merge_in_order", without_order),
    "lists are merged in the wrong direction": (combine_states, "_merge_in_order", ascending),
    "numbers are compared as texts": (combine_states, "_sort_value", lambda text, key: (text is None, text or "")),
    "equal numbers are compared in the order of buckets": (partial_states, "_in_order_of_rows", lambda node: True),
    "a filter is forgotten": (partial_states, "_filter", lambda condition: ""),
    "a bucket ends at its first value": (partial_buckets.Buckets, "high", partial_buckets.Buckets.low),
    "refused documents count as written": (CombiningSink, "_write_combined", all_are_accepted),
}


@pytest.mark.parametrize("rule", WEAKER)
def test_a_weaker_rule_is_detected(rule: str, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, weaker = WEAKER[rule]
    monkeypatch.setattr(owner, attribute, weaker)
    assert not play(dsn)


def test_times_that_are_truncated_towards_1970_are_detected(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trunc = "pg_catalog.trunc({}::pg_catalog.numeric / {})::pg_catalog.int8"
    monkeypatch.setattr(partial_buckets, "_floor", trunc.format)
    assert not play(dsn, TIMED)


def test_distinct_values_of_another_column_are_detected(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distinct values of each bucket are counted, also if they occur in other buckets."""
    monkeypatch.setattr(partial_states, "_check_distinct", lambda call, root, node: None)
    assert not play(dsn, replace(CASE, fields=(simple("count(distinct e.t"),)))
