"""A short round of `tests/torture`, on servers of its own, with another seed each time."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import devstack
from tests.conftest import temporary_home
from tests.torture.round import play

SEED = os.environ.get("TORTURE_SEED") or str(random.SystemRandom().randrange(10**6))
SECONDS = 60.0


@pytest.mark.timeout(600)
def test_every_document_is_right_after_a_round_under_fire(tmp_path: Path, say: Callable[[str], None]) -> None:
    say(f"torture: TORTURE_SEED={SEED}")
    stack = devstack.start(temporary_home(), ephemeral=True)
    try:
        report = play(stack, SEED, SECONDS, tmp_path, say)
    finally:
        stack.remove()
    say(f"torture: {report}")
    assert sum(report.faults.values()) >= 8, "too few faults to prove anything"
    assert report.rows > 1000
