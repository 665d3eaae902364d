"""Callers that wait for a watermark: how tokens are mapped, and when callers are released."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from syncer.clock import Identity, Snapshot
from syncer.errors import Retry
from syncer.freshness import waiting
from syncer.freshness.refused import Later, Refused
from syncer.freshness.snapshots import Observation
from syncer.freshness.tokens import Token, TokenKind, parse
from syncer.freshness.waiting import Waiters
from syncer.freshness.watermark import Watermark
from syncer.postgres.head import ABORTED, COMMITTED, FUTURE, IN_PROGRESS

HERE, ELSEWHERE = Identity(7, 1), Identity(7, 2)
NOW = Token(TokenKind.NOW)


def snapshot(clock: int) -> Snapshot:
    return Snapshot(clock, clock, frozenset())


def watermark(clock: int, identity: Identity = HERE, floor_lsn: int = 0) -> Watermark:
    return Watermark(1, identity, snapshot(clock), floor_lsn, 0)


def seen(clock: int, status: str = COMMITTED, identity: Identity = HERE) -> Callable[[Token], Observation]:
    return lambda token: Observation(snapshot(clock), identity, 1 << 40, status)


def none(model: str) -> None:
    """No read model has a watermark."""


def test_a_caller_is_released_when_the_watermark_reaches_its_clock() -> None:
    waiters = Waiters()
    caller = waiters.add("orders", parse("x:90"))
    assert waiters.map(seen(100), none) and caller.wanted == 100
    waiters.release("orders", watermark(99))
    waiters.release("other", watermark(200))
    assert not caller.future.done()
    waiters.release("orders", watermark(100))
    assert caller.future.result(0) == watermark(100)
    assert not waiters


def test_callers_are_released_in_the_order_of_their_clocks() -> None:
    waiters = Waiters()
    clocks = [105, 101, 103]
    callers = []
    for clock in clocks:
        callers.append(waiters.add("orders", NOW))
        waiters.map(seen(clock), none)
    waiters.release("orders", watermark(103))
    assert [caller.future.done() for caller in callers] == [False, True, True]
    assert len(waiters) == 1


def test_a_transaction_in_progress_is_mapped_later() -> None:
    waiters = Waiters()
    caller = waiters.add("orders", parse("x:90"))
    assert not waiters.map(seen(100, IN_PROGRESS), none) and caller.wanted is None and waiters
    waiters.release("orders", watermark(1000))
    assert not caller.future.done(), "no snapshot has seen the commit"
    waiters.map(seen(1001), none)
    assert caller.wanted == 1001


@pytest.mark.parametrize(("status", "code"), [(ABORTED, 409), (FUTURE, 400)])
def test_a_token_that_is_never_reached_is_refused(status: str, code: int) -> None:
    waiters = Waiters()
    caller = waiters.add("orders", parse("x:90"))
    waiters.map(seen(100, status), none)
    with pytest.raises(Refused) as error:
        caller.future.result(0)
    assert error.value.status == code and not waiters


def test_a_token_of_another_history_is_refused() -> None:
    waiters = Waiters()
    caller = waiters.add("orders", parse("x:90@7/2"))
    waiters.map(seen(100), none)
    with pytest.raises(Refused) as error:
        caller.future.result(0)
    assert error.value.status == 409


def test_equal_tokens_are_read_once() -> None:
    waiters, asked = Waiters(), []
    for _ in range(3):
        waiters.add("orders", NOW)

    def observe(token: Token) -> Observation:
        asked.append(token)
        return seen(100)(token)

    waiters.map(observe, none)
    assert asked == [NOW] and len(waiters) == 3


def test_a_watermark_that_shows_the_token_already_releases_at_once() -> None:
    waiters = Waiters()
    caller = waiters.add("orders", NOW)
    assert not waiters.map(seen(100), lambda model: watermark(100))
    assert caller.future.result(0).clock == 100


def test_a_watermark_of_another_history_does_not_release() -> None:
    waiters = Waiters()
    caller = waiters.add("orders", NOW)
    assert waiters.map(seen(100), lambda model: watermark(200, ELSEWHERE))
    assert not caller.future.done()


@pytest.mark.parametrize(("floor", "released"), [(999, False), (1000, False), (1001, True)])
def test_a_position_needs_no_snapshot_if_the_watermark_is_past_it(floor: int, released: bool) -> None:
    """The snapshot has to be later than the position, so an equal position is not enough."""
    waiters = Waiters()
    caller = waiters.add("orders", Token(TokenKind.POSITION, 1000))
    waiters.map(seen(500), lambda model: watermark(100, floor_lsn=floor))
    assert caller.future.done() == released


def test_another_history_while_callers_wait_is_a_conflict() -> None:
    waiters = Waiters()
    caller = waiters.add("orders", NOW)
    waiters.map(seen(100), none)
    waiters.release("orders", watermark(300, ELSEWHERE))
    with pytest.raises(Refused) as error:
        caller.future.result(0)
    assert error.value.status == 409


def test_callers_that_gave_up_are_forgotten() -> None:
    waiters = Waiters()
    callers = [waiters.add("orders", NOW) for _ in range(3)]
    callers[0].future.cancel()
    waiters.map(seen(100), none)
    callers[1].future.cancel()
    waiters.forget_cancelled()
    assert len(waiters) == 1
    waiters.release("orders", watermark(100))
    assert callers[2].future.result(0)


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST", 2)
    waiters = Waiters()
    waiters.add("orders", NOW)
    waiters.map(seen(100), none)
    waiters.add("orders", NOW)
    with pytest.raises(Later) as error:
        waiters.add("orders", NOW)
    assert error.value.status == 429


def test_all_callers_of_a_read_model_that_fails_end_at_once() -> None:
    waiters = Waiters()
    mapped = waiters.add("orders", NOW)
    waiters.map(seen(100), none)
    callers, other = [mapped, waiters.add("orders", parse("x:90"))], waiters.add("customers", NOW)
    given_up = waiters.add("orders", NOW)
    given_up.future.cancel()
    waiters.fail("orders", Retry("the read model has failed"))
    for caller in callers:
        with pytest.raises(Retry, match="has failed"):
            caller.future.result(0)
    assert not other.future.done() and len(waiters) == 1
