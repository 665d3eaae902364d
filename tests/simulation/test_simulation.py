"""Checks the promise in thousands of schedules, which differ in every run, and that they detect weaker rules."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.simulation.choices import Choices, decisions
from tests.simulation.history import KINDS
from tests.simulation.rounds import AS_IT_IS, REFUSING, portion, replay
from tests.simulation.schedule import run
from tests.simulation.shrink import shrink
from tests.simulation.weaker import WEAKER

_SCHEDULES = 5000
_REFUSING = 1000
_BOUND = 60_000
"""The number of schedules in which each weaker rule must be detected. Most need hundreds, the rarest some thousands.
Their seeds are fixed, so the result does not depend on chance."""


def test_every_document_equals_the_database(echo: Callable[[str], None]) -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    echo(f"seed {seed}: python -m tests.simulation --seed {seed} --schedules {_SCHEDULES}")
    count, seen, failed = portion(seed, _SCHEDULES)
    assert failed is None, f"schedule {failed}:\n{replay(failed)}"
    assert count == _SCHEDULES
    assert not [kind for kind in KINDS if not seen[kind]], "the schedules did not have these events"


def test_refused_documents_are_written_after_the_mapping_is_fixed() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _REFUSING, REFUSING)
    assert failed is None, f"schedule {failed}:\n{replay(failed, REFUSING)}"
    assert count == _REFUSING
    assert seen["a breaker opened"] and seen["a breaker closed"] and seen["a dead letter"]


@pytest.mark.parametrize("name", WEAKER)
def test_a_weaker_rule_is_detected(name: str) -> None:
    count, _, failed = portion(WEAKER[name].first, _BOUND, WEAKER[name])
    assert failed is not None, f"{count} schedules do not show this fault: {WEAKER[name].wrong}"
    as_it_is = REFUSING if WEAKER[name].refuses else AS_IT_IS
    assert portion(failed, 1, as_it_is)[2] is None, "the schedule fails without the weaker rule, too"
    assert portion(max(0, failed - 200), 201, as_it_is)[2] is None, (
        "an earlier schedule fails without the weaker rule, too"
    )


def test_a_seed_always_gives_the_same_schedule() -> None:
    first, second = (run(decisions(77), lines=True) for _ in range(2))
    assert first == second
    assert first.lines


def test_a_failing_schedule_is_shortened() -> None:
    rule = WEAKER["no before-images"]
    _, _, failed = portion(0, _BOUND, rule)
    assert failed is not None
    with rule.applied():
        whole = run(decisions(failed), lines=True)
    lines = replay(failed, rule).splitlines()
    assert len(lines) < len(whole.lines), "it is shorter"
    assert len(lines) < 25, "it is readable"
    assert lines[-2].startswith("→ order ")
    assert lines[-1].endswith(f"--replay {failed}")


def test_without_decisions_there_are_no_accidents() -> None:
    choices = Choices(b"\xff")
    assert (choices.of(4), choices.likely(1)) == (3, False)
    assert choices.used_up
    assert not run(b"").failure


def test_shrink_removes_decisions_that_do_not_matter() -> None:
    assert shrink(b"abcXdefYgh", lambda found: b"X" in found and b"Y" in found) == b"XY"
    assert shrink(b"abcdefgh", lambda found: found[5:6] == b"f") == b"\0\0\0\0\0f"
