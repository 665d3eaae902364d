"""The export is killed, and frozen, at every operation on a file. It loses no record, and appends none twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.export_steps import RECORDS, preloaded
from tests.harness.exports import duplicates

ROOT = Path(__file__).parents[3]


def cuts(folder: Path, mode: str, log: str = "DeltaLog") -> int:
    """Runs all cuts. Returns how many there were."""
    command = [
        *(sys.executable, "-m", "tests.harness.export_steps"),
        json.dumps({"folder": str(folder), "mode": mode, "log": log}),
    ]
    done = subprocess.run(command, env=preloaded(folder), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("mode", ["kill", "freeze"])
def test_an_export_is_exact_wherever_it_is_cut(tmp_path: Path, mode: str) -> None:
    count = cuts(tmp_path, mode)
    assert count > 20, "the creation of the table and two commits have more operations than that"
    assert duplicates(tmp_path, count, RECORDS) == {}


def test_an_export_that_does_not_read_transactions_is_caught(tmp_path: Path) -> None:
    count = cuts(tmp_path, "kill", "TrustingLog")
    assert duplicates(tmp_path, count, RECORDS)
