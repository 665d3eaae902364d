"""Checks what `.ci/run` reports about its two parts. A fake `make` only prints."""

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[3] / ".ci" / "run"
PASSED = "===== 3 passed in 0.1s ====="
FAILED = "===== 1 failed, 2 passed in 0.1s ====="
MAKE = """#!/bin/sh
echo "made $*"
case "$1" in
    test) {tests} ;;
    test-version) {version} ;;
esac
"""


def ci(folder: Path, day: str, tests: str, version: str) -> "subprocess.CompletedProcess[str]":
    """Runs `.ci/run` on a day of the year.

    tests, version: the shell commands that stand for the two targets of make.
    """
    programs = {"make": MAKE.format(tests=tests, version=version), "date": f"#!/bin/sh\necho {day}\n"}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run([RUN], env=environment, capture_output=True, text=True, timeout=60, check=False)


SECOND = "make test-version VERSION=17"


@pytest.mark.parametrize(
    ("tests", "version", "status", "end"),
    [
        (f"echo '{PASSED}'", f"echo '{PASSED}'", 0, f"make test: {PASSED}\n{SECOND}: {PASSED}"),
        (f"echo '{FAILED}'; exit 1", "exit 9", 1, f"make test: {FAILED}\nfailed with status 1"),
        (
            f"echo '{PASSED}'",
            f"echo '{FAILED}'; exit 2",
            2,
            f"make test: {PASSED}\n{SECOND}: {FAILED}\nfailed with status 2",
        ),
        ("exit 2", "exit 9", 2, "make test: pytest did not finish\nfailed with status 2"),
        ("kill -9 $$", "exit 9", 137, "make test: pytest did not finish\nfailed with status 137"),
    ],
)
def test_a_failure_of_either_part_fails_the_run(
    tmp_path: Path, tests: str, version: str, status: int, end: str
) -> None:
    done = ci(tmp_path, "002", tests, version)
    assert done.returncode == status
    assert done.stdout.rstrip().endswith(f"\n\n{end}")


def test_the_day_of_the_year_selects_the_version(tmp_path: Path) -> None:
    chosen = []
    for day in ("001", "002", "003", "008", "366"):
        done = ci(tmp_path, day, f"echo '{PASSED}'", f"echo '{PASSED}'")
        chosen.append(done.stdout.partition("\nmake test-version VERSION=")[2][:2])
    assert chosen == ["16", "17", "18", "14", "17"]
