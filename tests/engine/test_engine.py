"""For any read model and any history, every document equals the rows in the end.

Hypothesis generates a schema, a read model over it and a history, which run on a real PostgreSQL. A history has
statements of interleaved sessions, late commits, redelivery, restarts and sinks that fail. Hypothesis shrinks a
failing example. More examples: `pytest tests/engine --hypothesis-profile=long`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

import devstack
from tests.conftest import temporary_home
from tests.engine import changes
from tests.engine.application import OPTIONS
from tests.engine.arbitrary import Case, cases
from tests.engine.play import Play
from tests.engine.statements import Transaction, actions, rows

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


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """Starts a PostgreSQL for this test.

    With `synchronous_commit=on`, commits wait for a standby that does not exist.
    """
    own = devstack.start(temporary_home(), only=["postgres"], ephemeral=True)
    try:
        with psycopg.connect(own.postgres, autocommit=True, options=OPTIONS) as admin:
            changes.begin(admin)
            for setting in (
                "synchronous_commit = local",
                "synchronous_standby_names = 'none_exists'",
                "fsync = off",
                "autovacuum = off",  # it locks catalogs, and the sessions do not wait for locks
            ):
                admin.execute(f"ALTER SYSTEM SET {setting}".encode())
            admin.execute("SELECT pg_reload_conf()")
        yield own.postgres
    finally:
        own.remove()


class History(RuleBasedStateMachine):
    """A history, step by step. The lanes run only when a rule steps them."""

    dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.play: Play | None = None
        self.compared = False

    @initialize(case=cases(), data=st.data())
    def earlier_rows(self, case: Case, data: Any) -> None:
        """Creates the tables, some rows without change events, and a backfill."""
        self.play = Play(self.dsn, case)
        self.play.act(Transaction(tuple(data.draw(rows(case.schema), "before")), "COMMIT"))
        changes.read(self.play.admin, None)
        self.play.backfill()

    @rule(data=st.data())
    def happen(self, data: Any) -> None:
        """Draws some events and applies them.

        An event is a write of the application with a batch of its changes, a step of work, or a disturbance.
        """
        assert self.play
        written = st.tuples(actions(self.play.case.tables), st.none() | TAKE)
        disturbed = st.sampled_from(sorted(DISTURBANCES))
        one = st.one_of(written, written, written, written, TAKE, disturbed)
        for event in data.draw(st.lists(one, min_size=1, max_size=8), "events"):
            self.apply(self.play, event)
        self.compared = False

    def apply(self, play: Play, event: Any) -> None:
        """Applies one event."""
        match event:
            case str():
                DISTURBANCES[event](play)
            case list():
                play.step(play.lanes[1], event)
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
        assert not self.play.dead_letters.written
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
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    examples = settings().max_examples // 2  # half of the profile's, because each takes long
    chosen = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=slow,
        report_multiple_bugs=False,
    )
    History.dsn = dsn
    run_state_machine_as_test(History, settings=chosen)
