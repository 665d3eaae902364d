"""For any read model and any history, every document equals the rows in the end.

Hypothesis generates a schema, a read model over it and a history, which run on a real PostgreSQL. A history has
statements of interleaved sessions, late commits, redelivery, restarts and sinks that fail. Hypothesis shrinks a
failing example. New examples: `pytest tests/engine --hypothesis-profile=explore`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from syncer import sinks
from syncer.declaration.compile import Compiled
from syncer.ports import Sink
from tests.engine import changes
from tests.engine.arbitrary import cases, cases_of_groups
from tests.engine.groups import GroupedPlay, grouped_cases
from tests.engine.play import Play
from tests.engine.statements import Action, Step, Transaction, actions, rows
from tests.harness.postgres_servers import reads_database

TAKE = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3)), min_size=1, max_size=4)
DISTURBANCES: dict[str, Callable[[Play], None]] = {
    "a late commit becomes visible": Play.release_one,
    "the syncer is killed, its last write is under way": Play.restart,
    "the syncer is killed, its last write is lost": lambda play: play.restart(lost=True),
    "a write under way arrives": lambda play: play.time.finish(1),
    "Debezium repeats itself": lambda play: play.publish_again(4),
    "the sink will be unreachable": lambda play: play.sink.fail("unreachable"),
    "the sink will write without an answer": lambda play: play.sink.fail("answer lost"),
    "the sink will write half": lambda play: play.sink.fail("half"),
    "six seconds pass": lambda play: play.time.pass_by(6.0),
    "a backfill": Play.backfill,
}


class History(RuleBasedStateMachine):
    """A history, step by step. The lanes run only when a rule steps them."""

    dsn: ClassVar[str]
    disturbances: ClassVar[Mapping[str, Callable[[Any], None]]] = DISTURBANCES

    @staticmethod
    def sink_maker() -> Callable[[Compiled], Sink] | None:
        """Returns the function that makes the sink of a read model. None: the documents are in memory."""
        return None

    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        """Draws a case. Returns it with the class that plays it."""
        return data.draw(cases(), "case"), Play

    @staticmethod
    def before(case: Any, data: Any) -> Sequence[Step]:
        """Draws the rows that exist before the first change event."""
        found: Sequence[Step] = data.draw(rows(case.schema), "before")
        return found

    @staticmethod
    def actions(case: Any) -> st.SearchStrategy[Action]:
        """Draws one action of the application."""
        return actions(case.tables)

    @staticmethod
    def events(case: Any, any_events: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[list[Any]]:
        """Draws some events. any_events: draws independent events of all kinds."""
        return any_events

    def __init__(self) -> None:
        super().__init__()
        self.play: Play | None = None
        self.compared = False

    @initialize(data=st.data())
    def earlier_rows(self, data: Any) -> None:
        """Creates the tables, some rows without change events, and a backfill."""
        case, play = self.cases(data)
        self.play = play(self.dsn, case, self.sink_maker())
        self.play.act(Transaction(tuple(self.before(case, data)), "COMMIT"))
        changes.read(self.play.admin, None)
        self.play.backfill()

    @rule(data=st.data())
    def happen(self, data: Any) -> None:
        """Draws some events and applies them.

        An event is a write of the application with a batch of its changes, or with a connector that loses inserted
        rows; a step of work; or a disturbance.
        """
        assert self.play
        written = st.tuples(self.actions(self.play.case), st.none() | TAKE)
        lost = st.tuples(st.just("lost"), self.actions(self.play.case))
        disturbed = st.sampled_from(sorted(self.disturbances))
        one = st.one_of(written, written, written, written, lost, TAKE, disturbed)
        for event in data.draw(self.events(self.play.case, st.lists(one, min_size=1, max_size=8)), "events"):
            self.apply(self.play, event)
        self.compared = False

    def apply(self, play: Play, event: Any) -> None:
        """Applies one event."""
        match event:
            case str():
                self.disturbances[event](play)
            case list():
                play.step(play.lanes[1], event)
            case "lost", action:
                play.act(action)
                play.lose_inserts()
            case action, take:
                play.act(action)
                play.follow(take)

    @precondition(lambda self: not self.compared)
    @rule()
    def compare(self) -> None:
        """Compares all documents: none is missing, left over, stale or rejected."""
        assert self.play
        self.play.drain()
        have, want = self.play.written(), self.play.expected()
        for id in have | want:
            if have.get(id) != want.get(id):
                note(f"document {id}\n  is        {have.get(id)}\n  should be {want.get(id)}")
        assert have == want
        assert not self.play.refused()
        self.compared = True

    def teardown(self) -> None:
        if self.play:
            try:
                self.play.commit_all()
                self.compare()
            finally:
                self.play.close()


@pytest.mark.timeout(7200)  # the long profile, and to shrink an example takes time
def test_every_document_equals_the_rows(dsn: str) -> None:
    History.dsn = dsn
    run(History, settings().max_examples // 2)  # half of the profile's, because each takes long


class GroupedHistory(History):
    """A history of a grouped root. The documents are compared with those of a SELECT with GROUP BY."""

    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        return data.draw(grouped_cases(), "case"), GroupedPlay


@pytest.mark.timeout(7200)
def test_every_document_of_a_group_equals_sql(dsn: str) -> None:
    GroupedHistory.dsn = dsn
    run(GroupedHistory, settings().max_examples // 6)


@pytest.mark.parametrize(("base", "part"), [(History, 10), (GroupedHistory, 25)], ids=["rows", "groups"])
def test_every_row_of_a_table_of_postgresql_equals_the_rows(dsn: str, base: type[History], part: int) -> None:
    """The sink writes to another database of the same server."""
    with reads_database(dsn) as reads, psycopg.connect(reads, autocommit=True) as session:

        class TableHistory(base):  # type: ignore[misc, valid-type]
            @staticmethod
            def sink_maker() -> Callable[[Compiled], Sink]:
                block, link = {"table": "read.documents"}, {"dsn": reads}
                return lambda model: sinks.build("postgres", block, model=model, connection=link)

            def teardown(self) -> None:
                super().teardown()
                session.execute("DROP TABLE IF EXISTS read.syncer_generations, read.documents_000001 CASCADE")

        TableHistory.dsn = dsn
        run(TableHistory, settings().max_examples // part)


class HistoryOfGroups(History):
    """A history of a read model whose documents have a list with one element for each group of rows."""

    @staticmethod
    def cases(data: Any) -> tuple[Any, type[Play]]:
        return data.draw(cases_of_groups(), "case"), Play


def test_every_list_of_groups_equals_the_rows(dsn: str) -> None:
    HistoryOfGroups.dsn = dsn
    run(HistoryOfGroups, settings().max_examples // 5)


def run(machine: type[History], examples: int) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=slow,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine, settings=chosen)
