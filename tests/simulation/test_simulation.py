"""The promise, in thousands of schedules that differ in every run; and that they would notice."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.simulation.choices import Choices, decisions
from tests.simulation.history import KINDS
from tests.simulation.rounds import AS_IT_IS, REFUSING, portion, told
from tests.simulation.schedule import run
from tests.simulation.shrink import shrink
from tests.simulation.weaker import WEAKER

_SCHEDULES = 5000
_REFUSING = 1000
_BOUND = 60_000
"""Schedules within which each weaker rule is found out: most in hundreds, the rarest in some thousands.
Their seeds are fixed, so that chance has no say."""


def test_every_document_is_what_the_database_says(echo: Callable[[str], None]) -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    echo(f"seed {seed}: python -m tests.simulation --seed {seed} --schedules {_SCHEDULES}")
    count, seen, failed = portion(seed, _SCHEDULES)
    assert failed is None, f"schedule {failed}:\n{told(failed)}"
    assert count == _SCHEDULES
    assert not [kind for kind in KINDS if not seen[kind]], "the schedules did not exercise this"


def test_refused_documents_are_written_once_the_sink_takes_them() -> None:
    seed = random.SystemRandom().randrange(1 << 40)
    count, seen, failed = portion(seed, _REFUSING, REFUSING)
    assert failed is None, f"schedule {failed}:\n{told(failed, REFUSING)}"
    assert count == _REFUSING
    assert seen["a breaker opened"] and seen["a breaker closed"] and seen["a dead letter"]


@pytest.mark.parametrize("name", WEAKER)
def test_a_weaker_rule_is_found_out(name: str) -> None:
    count, _, failed = portion(0, _BOUND, WEAKER[name])
    assert failed is not None, f"{count} schedules do not show that {WEAKER[name].wrong}"
    as_it_is = REFUSING if WEAKER[name].refuses else AS_IT_IS
    assert portion(failed, 1, as_it_is)[2] is None, "it is not the rule that fails there"
    assert portion(max(0, failed - 200), 201, as_it_is)[2] is None, "nor in the schedules before"


def test_a_schedule_is_the_same_every_time() -> None:
    first, second = (run(decisions(77), lines=True) for _ in range(2))
    assert first == second
    assert first.lines


def test_a_failure_is_told_short() -> None:
    rule = WEAKER["no before-images"]
    _, _, failed = portion(0, _BOUND, rule)
    assert failed is not None
    with rule.applied():
        whole = run(decisions(failed), lines=True)
    lines = told(failed, rule).splitlines()
    assert len(lines) < len(whole.lines), "it was made short"
    assert len(lines) < 25, "so that a person can read it"
    assert lines[-2].startswith("→ order ")
    assert lines[-1].endswith(f"--replay {failed}")


def test_without_decisions_all_is_calm() -> None:
    choices = Choices(b"\xff")
    assert (choices.of(4), choices.likely(1)) == (3, False)
    assert choices.used_up
    assert not run(b"").failure


def test_what_does_not_matter_is_left_out() -> None:
    assert shrink(b"abcXdefYgh", lambda found: b"X" in found and b"Y" in found) == b"XY"
    assert shrink(b"abcdefgh", lambda found: found[5:6] == b"f") == b"\0\0\0\0\0f"
