"""Checks the switch of readers to a new generation in schedules that differ in every run."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import ExitStack
from unittest.mock import patch

import pytest

from tests.simulation.activation import run
from tests.simulation.choices import decisions
from tests.simulation.shrink import shrink
from tests.simulation.weaker.activations import RULES

_SCHEDULES = 300
_BOUND = 5000
_KINDS = (
    "a resync succeeded",
    "a resync failed",
    "a resync was killed",
    "sinks showed two generations",
    "an old generation was deleted",
    "an interrupted switch was repeated",
    "a resync ran while another one was frozen",
)


def _replay(seed: int) -> str:
    short = shrink(decisions(seed), lambda chosen: bool(run(chosen)[0]))
    failure, _, lines = run(short)
    return "\n".join([f"schedule {seed}:", *lines, f"→ {failure}"])


def test_readers_always_see_a_complete_generation_that_is_kept_in_sync() -> None:
    first, seen = random.SystemRandom().randrange(1 << 40), Counter[str]()
    for seed in range(first, first + _SCHEDULES):
        failure, events, _ = run(decisions(seed))
        assert not failure, _replay(seed)
        seen.update(kind for kind, times in events.items() if times)
    assert not [kind for kind in _KINDS if not seen[kind]], "the schedules did not have these events"


@pytest.mark.parametrize("name", RULES)
def test_a_weaker_switch_is_detected(name: str) -> None:
    with ExitStack() as stack:
        for (owner, function), replacement in RULES[name].patches.items():
            stack.enter_context(patch.object(owner, function, replacement))
        first = RULES[name].first
        failed = next((seed for seed in range(first, first + _BOUND) if run(decisions(seed))[0]), None)
    assert failed is not None, f"{_BOUND} schedules do not show this fault: {RULES[name].wrong}"
    assert not run(decisions(failed))[0], "the schedule fails without the weaker rule, too"
