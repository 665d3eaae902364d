"""A short round of `make torture`, on servers of its own, with another seed each time (TORTURE_SEED)."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import devstack
from tests.conftest import temporary_home
from tests.torture.round import run_round

SEED = os.environ.get("TORTURE_SEED") or str(random.SystemRandom().randrange(10**6))
SECONDS = 20.0
PATIENCE = 240.0
"""Seconds in which all has to be right. That it takes a minute at most is for `make torture` to show, on a
machine that does nothing else."""


@pytest.mark.timeout(2 * PATIENCE + 300)
def test_every_document_is_right_after_a_round_under_fire(tmp_path: Path, echo: Callable[[str], None]) -> None:
    echo(f"torture: TORTURE_SEED={SEED}")
    stack = devstack.start(temporary_home(), ephemeral=True)
    try:
        report = run_round(stack, SEED, SECONDS, tmp_path, timeout=PATIENCE)
    finally:
        stack.remove()
    echo(f"torture: {report}")
    assert sum(report.faults.values()) >= 5, "too few faults to prove anything"
    assert report.rows > 1000
