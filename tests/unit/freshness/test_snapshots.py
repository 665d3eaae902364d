"""Which observations satisfy a token. Pure: `tests/integration/test_freshness_snapshots.py` asks PostgreSQL."""

from __future__ import annotations

import pytest

from syncer.clock import Identity, Snapshot
from syncer.freshness.refused import Refused
from syncer.freshness.snapshots import Observation, satisfies
from syncer.freshness.tokens import parse
from syncer.postgres.head import ABORTED, COMMITTED, FORGOTTEN, FUTURE, IN_PROGRESS

HOME = Identity(7, 1)


def observed(status: str = COMMITTED, snapshot: str = "10:20:12", lsn: int = 0x100) -> Observation:
    return Observation(Snapshot.parse(snapshot), HOME, lsn, status)


def test_a_committed_transaction_is_satisfied_by_a_snapshot_that_sees_it() -> None:
    assert satisfies(parse("x:15"), observed())
    assert not satisfies(parse("x:12"), observed())  # a snapshot that was taken before the commit


def test_a_running_subtransaction_is_not_taken_for_a_visible_one() -> None:
    """A snapshot lists top-level transactions only, so it seems to see subtransaction 15 of transaction 12."""
    assert observed().snapshot.sees(15)
    assert not satisfies(parse("x:15"), observed(IN_PROGRESS))


def test_every_snapshot_sees_a_transaction_that_is_too_old_for_a_status() -> None:
    assert satisfies(parse("x:5"), observed(FORGOTTEN))


@pytest.mark.parametrize(
    ("token", "status", "code", "what"),
    [
        ("x:15", ABORTED, 409, "rolled back"),
        ("x:25", FUTURE, 400, "has not reached"),
        ("l:0/101", COMMITTED, 400, "has not reached"),
        ("x:15@7/2", COMMITTED, 409, "another PostgreSQL server or timeline"),
        ("l:0/1@8/1", COMMITTED, 409, "another PostgreSQL server or timeline"),
    ],
)
def test_tokens_that_can_never_be_satisfied_are_refused(token: str, status: str, code: int, what: str) -> None:
    with pytest.raises(Refused, match=what) as caught:
        satisfies(parse(token), observed(status))
    assert caught.value.status == code
    assert token in caught.value.where and caught.value.hint


def test_a_position_and_now_are_satisfied_by_the_next_snapshot() -> None:
    assert satisfies(parse("l:0/100"), observed())
    assert satisfies(parse("l:0/100@7/1"), observed())
    assert satisfies(parse("now"), observed())
