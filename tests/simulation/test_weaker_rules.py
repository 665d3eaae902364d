"""Checks that the schedules detect each weaker rule. A file of its own, so that another worker can run it."""

from __future__ import annotations

import pytest

from tests.simulation.rounds import BOUND, portion, unchanged
from tests.simulation.weaker import WEAKER

_EARLIER = 100
"""The schedules before a failed one that must succeed without the weaker rule, as it must."""
_SUCCEEDED: set[tuple[str, int]] = set()
"""The worlds and seeds whose schedules succeeded without a weaker rule. Many rules have the same world."""


@pytest.mark.parametrize("name", WEAKER)
def test_a_weaker_rule_is_detected(name: str) -> None:
    rule = WEAKER[name]
    count, _, failed = portion(rule.first, BOUND, rule)
    assert failed is not None, f"{count} schedules do not show this fault: {rule.wrong}"
    as_it_is = unchanged(rule)
    seeds = {(str(as_it_is.world), seed) for seed in range(max(0, failed - _EARLIER), failed + 1)}
    if missing := seeds - _SUCCEEDED:
        first = min(seed for _, seed in missing)
        also = portion(first, failed + 1 - first, as_it_is)[2]
        assert also is None, f"schedule {also} fails without the weaker rule, too"
        _SUCCEEDED.update(seeds)
