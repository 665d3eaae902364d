"""Every example of `readmodels/`, as a user runs it: `make example NAME=…`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from demo.examples.__main__ import HOME, names
from devstack import stack
from tests.harness import terminal

ROOT = Path(__file__).parents[2]


@pytest.mark.full
@pytest.mark.examples
@pytest.mark.parametrize("name", names())
def test_an_example_shows_correct_results_and_deletes_its_servers(name: str, tmp_path: Path) -> None:
    home = tmp_path / "example"
    settings = {"EXAMPLE_HOME": str(home), "LIVE_SECONDS": "2", "ORDERS": "1000", "SYNCER_MODELS": "/nowhere"}
    shown = terminal.run(["make", "example", f"NAME={name}"], cwd=ROOT, environment=dict(os.environ) | settings)
    assert shown.status == 0, shown.text
    assert "All results are correct." in shown.text and "equal to SQL over the tables" in shown.text
    assert not (home / stack.STATE).exists() and "[y/N]" not in shown.text


def test_an_unknown_example_prints_the_known_ones() -> None:
    done = subprocess.run(["make", "example", "NAME=serch"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "There is no example called 'serch'." in done.stdout
    for name in names():
        assert f"  make example NAME={name}" in done.stdout
    assert not HOME.exists()
