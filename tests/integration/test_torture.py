"""Runs a short round of `make torture` on its own servers, with a new seed each time (TORTURE_SEED)."""

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
GROUP_ROWS = 2_000
PATIENCE = 240.0
"""Maximum seconds until all documents are correct.

`make torture` checks the limit of one minute on an idle machine.
"""


@pytest.mark.long
@pytest.mark.timeout(2 * PATIENCE + 300)
def test_every_document_is_correct_after_a_round_of_faults(tmp_path: Path, echo: Callable[[str], None]) -> None:
    echo(f"torture: TORTURE_SEED={SEED}")
    stack = devstack.start(temporary_home(), ephemeral=True)
    try:
        report = run_round(stack, SEED, SECONDS, tmp_path, timeout=PATIENCE, group_rows=GROUP_ROWS)
    finally:
        stack.remove()
    echo(f"torture: {report}")
    assert sum(report.faults.values()) >= 5, "too few faults to prove anything"
    assert report.rows > 1000 and report.group_writes > 50
    assert report.waits.get(200, 0) >= 5 and report.samples >= 5
