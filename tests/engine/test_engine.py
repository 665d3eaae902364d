"""Whatever is declared and whatever happens: in the end, every document is what the rows say.

Hypothesis makes a schema, a read model over it and a history (statements of interleaved sessions, commits
that are seen late, redelivery, restarts, sinks that fail), on a real PostgreSQL. What it finds, it makes
small. More examples: `pytest tests/engine --hypothesis-profile=long`.
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
    "a commit that nobody saw becomes visible": Play.release_one,
    "the syncer is killed, its last write is on the way": Play.restart,
    "the syncer is killed, its last write is lost": lambda play: play.restart(lost=True),
    "a write on the way arrives": lambda play: play.time.finish(1),
    "Debezium repeats itself": lambda play: play.tell_again(4),
    "the sink will be away": lambda play: play.sink.fail("away"),
    "the sink will write, and not say so": lambda play: play.sink.fail("answer lost"),
    "the sink will take half": lambda play: play.sink.fail("half"),
    "six seconds pass": lambda play: play.time.pass_by(6.0),
    "a backfill": Play.backfill,
}


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """A PostgreSQL of our own. With `synchronous_commit=on`, commits wait for a standby that there is not."""
    own = devstack.start(temporary_home(), only=["postgres"], ephemeral=True)
    try:
        with psycopg.connect(own.postgres, autocommit=True, options=OPTIONS) as admin:
            changes.begin(admin)
            for setting in (
                "synchronous_commit = local",
                "synchronous_standby_names = 'nobody'",
                "fsync = off",
                "autovacuum = off",  # it locks catalogs, and nobody waits for a lock here
            ):
                admin.execute(f"ALTER SYSTEM SET {setting}".encode())
            admin.execute("SELECT pg_reload_conf()")
        yield own.postgres
    finally:
        own.remove()


class History(RuleBasedStateMachine):
    """A history, step by step. The engine steps only where a rule says so."""

    dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.play: Play | None = None
        self.compared = False

    @initialize(case=cases(), data=st.data())
    def rows_of_before(self, case: Case, data: Any) -> None:
        """The tables, some rows whose changes are not told, and a backfill."""
        self.play = Play(self.dsn, case)
        self.play.act(Transaction(tuple(data.draw(rows(case.schema), "before")), "COMMIT"))
        changes.read(self.play.admin, None)
        self.play.backfill()

    @rule(data=st.data())
    def happen(self, data: Any) -> None:
        """The application writes; what is committed is told, and a batch of it taken, or more later. Or the
        syncer works, or is disturbed."""
        assert self.play
        written = st.tuples(actions(self.play.case.tables), st.none() | TAKE)
        disturbed = st.sampled_from(sorted(DISTURBANCES))
        one = st.one_of(written, written, written, written, TAKE, disturbed)
        for event in data.draw(st.lists(one, min_size=1, max_size=8), "events"):
            self.tell(self.play, event)
        self.compared = False

    def tell(self, play: Play, event: Any) -> None:
        """One event."""
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
        """Nothing is missing, nothing is left over, nothing is stale; nothing was refused."""
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


@pytest.mark.timeout(7200)  # the long profile; and making an example small takes its time
def test_every_document_is_what_the_rows_say(dsn: str) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    examples = settings().max_examples // 2  # of the profile's: they take long
    chosen = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=slow,
        report_multiple_bugs=False,
    )
    History.dsn = dsn
    run_state_machine_as_test(History, settings=chosen)
