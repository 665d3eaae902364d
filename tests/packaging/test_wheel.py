"""Tests that the wheel installs into an empty environment and runs there."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from syncer import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the `syncer` command of a new environment with the wheel and its locked dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    )
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=True)
    python = str(folder / "environment" / "bin" / "python")
    run(python, "-m", "pip", "install", "--require-hashes", "-r", str(ROOT / "requirements.txt"))
    run(python, "-m", "pip", "install", "--no-deps", str(wheel))
    run(python, "-m", "pip", "check")
    return folder / "environment" / "bin" / "syncer"


def run(*arguments: str, cwd: str | None = None) -> str:
    """Runs a command and returns its standard output. Raises AssertionError if it fails."""
    done = subprocess.run(
        arguments,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_command_runs_outside_the_repository(command: Path, tmp_path: Path) -> None:
    assert __version__ in run(str(command), "--version", cwd=str(tmp_path))


def test_every_command_prints_its_help(command: Path, tmp_path: Path) -> None:
    """A module that is missing in the wheel would fail here."""
    for name in (
        "backfill",
        "check",
        "config",
        "connectors",
        "dlq",
        "explain",
        "export",
        "preview",
        "refresh",
        "resync",
        "run",
        "serve",
        "status",
        "top",
        "trace",
        "verify",
        "wait",
    ):
        assert "Usage" in run(str(command), name, "--help", cwd=str(tmp_path))


def test_the_wheel_contains_the_sinks(command: Path, tmp_path: Path) -> None:
    schema = run(str(command), "config", "schema", cwd=str(tmp_path))
    assert all(f'"{section}"' in schema for section in ("elasticsearch", "kafka", "postgres_sink", "redis"))
