"""Lists that are linked through other relations and have a limit, such as feeds: each rule of their SQL is needed.

`test_engine.py` has such lists among its read models, and shows that all documents are right. Here, a rule is left out,
and the same comparison has to detect it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from syncer.declaration.compile import Compiled, compile
from tests.engine import changes, play
from tests.engine.arbitrary import feed, feeds
from tests.engine.play import Play
from tests.engine.statements import Statement, Step, Transaction
from tests.engine.test_engine import History, run
from tests.engine.tree import Name, Order

BEFORE = [
    Statement("INSERT INTO a VALUES ('2024-02-29'), ('0001-01-01')"),
    Statement("INSERT INTO b VALUES (0, '2024-02-29', 'low'), (1, '2024-02-29', 'low'), (2, '2024-02-29', 'high')"),
    Statement("INSERT INTO b VALUES (3, '0001-01-01', 'high')"),
    Statement("INSERT INTO c VALUES (0, 'low', 3), (1, 'high', 2), (2, 'low', 1), (3, 'low', 0), (4, 'high', NULL)"),
]
"""Two users: one follows `low` twice, and both follow `high`. Each author has more posts than the limit."""


class FeedHistory(History):
    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        return data.draw(feeds(), "case"), Play

    @staticmethod
    def before(case: Any, data: Any) -> Sequence[Step]:
        return BEFORE


def _sql(pattern: str, by: str) -> Callable[[Compiled], Compiled]:
    def weaker(compiled: Compiled) -> Compiled:
        return replace(
            compiled,
            render=_replaced(pattern, by, compiled.render),
            render_between=_replaced(pattern, by, compiled.render_between),
            render_upto=_replaced(pattern, by, compiled.render_upto),
        )

    return weaker


def _replaced(pattern: str, by: str, sql: str) -> str:
    found, count = re.subn(pattern, by, sql)
    assert count, sql
    return found


def _unused(path: str, column: str) -> Callable[[Compiled], Compiled]:
    def weaker(compiled: Compiled) -> Compiled:
        uses = [replace(use, used=use.used - {column}) if use.path == path else use for use in compiled.table_uses]
        return replace(compiled, table_uses=tuple(uses))

    return weaker


def _missing(path: str) -> Callable[[Compiled], Compiled]:
    def weaker(compiled: Compiled) -> Compiled:
        return replace(compiled, table_uses=tuple(use for use in compiled.table_uses if use.path != path))

    return weaker


WEAKER: dict[str, Callable[[Compiled], Compiled]] = {
    "a row occurs once for each path": _sql(r"SELECT DISTINCT (?=t\d+\.)", "SELECT "),
    "the limit applies to each link value only": _sql(r"LIMIT \d+(?=\) c\d+ JOIN)", ""),
    "any rows of a link value": _sql(r"ORDER BY [^()]* (LIMIT \d+\) f\d+)", r"\1"),
    "an update on the way changes no list": _unused("r0", "q"),
    "a change of a listed row is not looked up": _missing("r1"),
}


CHANGES = [
    "UPDATE b SET q = 'high' WHERE k = 0",
    "UPDATE b SET q = 'high' WHERE k = 1",
    "INSERT INTO c VALUES (5, 'high', 5)",
    "UPDATE c SET p = 'low' WHERE k = 4",
    "INSERT INTO b VALUES (4, '0001-01-01', 'low')",
    "DELETE FROM c WHERE k = 5",
    "DELETE FROM b WHERE k = 3",
]
"""One change at a time, so that no other change makes the same feed dirty."""


def differing(dsn: str) -> list[str]:
    """Plays a fixed case. Returns the changes after which a feed differs from the rows."""
    order = (Order(Name((), "k"), descending=True),)
    playing = Play(dsn, feed(order, None, 2))
    try:
        playing.act(Transaction(tuple(BEFORE), "COMMIT"))
        changes.read(playing.admin, None)
        playing.backfill()
        found = []
        for change in ["the backfill", *CHANGES]:
            if change in CHANGES:
                playing.act(Transaction((Statement(change),), "COMMIT"))
            playing.drain()
            if playing.written() != playing.expected():
                found.append(change)
        return found
    finally:
        playing.close()


def test_each_feed_equals_the_rows_after_each_change(dsn: str) -> None:
    assert not differing(dsn)


@pytest.mark.parametrize("rule", WEAKER)
def test_a_weaker_rule_is_detected(dsn: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "compile", lambda model, catalog: WEAKER[rule](compile(model, catalog)))
    assert differing(dsn)


def test_every_feed_equals_the_rows(dsn: str) -> None:
    FeedHistory.dsn = dsn
    run(FeedHistory, 5)
