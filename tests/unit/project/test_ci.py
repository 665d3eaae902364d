"""Checks what `.ci/run` reports about its parts. A fake `make` only prints."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

RUN = Path(__file__).parents[3] / ".ci" / "run"
PASSED = "===== 3 passed in 0.1s ====="
FAILED = "===== 1 failed, 2 passed in 0.1s ====="
MAKE = """#!/bin/sh
echo "made $*"
case "$1" in
    test) {tests} ;;
    test-again) {again} ;;
    test-long) {long} ;;
    test-version | test-browser | test-examples) {version} ;;
esac
"""


def ci(
    folder: Path,
    day: str,
    tests: str,
    version: str,
    *,
    failed: Sequence[str] = (),
    again: str = "exit 9",
    long: str = f"echo '{PASSED}'",
) -> "subprocess.CompletedProcess[str]":
    """Runs a copy of `.ci/run` on a day of the year.

    tests, version, again, long: the shell commands that stand for the targets of make.
    failed: the tests that pytest remembers as failed.
    """
    programs = {
        "bin/make": MAKE.format(tests=tests, version=version, again=again, long=long),
        "bin/date": f"#!/bin/sh\necho {day}\n",
    }
    for name, text in programs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    run = folder / ".ci" / "run"
    run.parent.mkdir(exist_ok=True)
    shutil.copy(RUN, run)
    if failed:
        cache = folder / ".pytest_cache" / "v" / "cache" / "lastfailed"
        cache.parent.mkdir(parents=True)
        cache.write_text(json.dumps(dict.fromkeys(failed, True), indent=2))  # as pytest writes it
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run([run], env=environment, capture_output=True, text=True, timeout=60, check=False)


LONG = f"make test-long: {PASSED}"
LAST = "make test-version VERSION=17"


@pytest.mark.parametrize(
    ("tests", "version", "status", "end"),
    [
        (f"echo '{PASSED}'", f"echo '{PASSED}'", 0, f"make test: {PASSED}\n{LONG}\n{LAST}: {PASSED}"),
        (f"echo '{FAILED}'; exit 1", "exit 9", 1, f"make test: {FAILED}\nfailed with status 1"),
        (
            f"echo '{PASSED}'",
            f"echo '{FAILED}'; exit 2",
            2,
            f"make test: {PASSED}\n{LONG}\n{LAST}: {FAILED}\nfailed with status 2",
        ),
        ("exit 2", "exit 9", 2, "make test: pytest did not finish\nfailed with status 2"),
        ("kill -9 $$", "exit 9", 137, "make test: pytest did not finish\nfailed with status 137"),
    ],
)
def test_a_failure_of_a_part_fails_the_run(tmp_path: Path, tests: str, version: str, status: int, end: str) -> None:
    done = ci(tmp_path, "002", tests, version)
    assert done.returncode == status
    assert done.stdout.rstrip().endswith(f"\n\n{end}")


def test_a_failure_of_the_long_tests_ends_the_run(tmp_path: Path) -> None:
    done = ci(tmp_path, "002", f"echo '{PASSED}'", "exit 9", long=f"echo '{FAILED}'; exit 3")
    assert done.returncode == 3
    assert done.stdout.rstrip().endswith(f"\n\nmake test: {PASSED}\nmake test-long: {FAILED}\nfailed with status 3")


def test_the_day_of_the_year_selects_the_last_suite(tmp_path: Path) -> None:
    chosen = []
    for day in ("001", "002", "003", "004", "005", "008", "009", "366"):
        done = ci(tmp_path, day, f"echo '{PASSED}'", f"echo '{PASSED}'")
        chosen.append(done.stdout.rpartition("\nmake test-")[2].partition(":")[0])
    versions = [f"version VERSION={version}" for version in (16, 17, 18)]
    assert chosen == [*versions, "browser", "examples", versions[1], versions[2], "version VERSION=14"]


ONE = 'tests/integration/test_a.py::test_b[c d-"e"]'


def test_a_test_on_real_servers_may_fail_once(tmp_path: Path) -> None:
    done = ci(tmp_path, "002", f"echo '{FAILED}'; exit 2", f"echo '{PASSED}'", failed=[ONE], again=f"echo '{PASSED}'")
    printed = json.dumps(ONE)[1:-1]
    assert done.returncode == 0
    assert f"These tests failed, so they ran again alone:\n{printed}\nmake test-again: {PASSED}" in done.stdout
    assert done.stdout.rstrip().endswith(f"{LONG}\n{LAST}: {PASSED}")


@pytest.mark.parametrize(
    "failed",
    [
        [f"tests/integration/test_a.py::test_{n}" for n in range(4)],
        [ONE, "tests/unit/test_a.py::test_b"],
        ["tests/engine/test_engine.py::test_every_document_equals_the_rows"],
        ["tests/integration/test_torture.py::test_every_document_is_correct_after_a_round_of_faults"],
        ["tests/integration/test_convergence.py::test_a"],
        ["tests/integration/test_a.py"],
        [],
    ],
)
def test_other_failures_count_at_once(tmp_path: Path, failed: list[str]) -> None:
    line = FAILED.replace("1 failed", f"{len(failed)} failed")
    done = ci(tmp_path, "002", f"echo '{line}'; exit 2", "exit 9", failed=failed, again="exit 0")
    assert done.returncode == 2
    assert "made test-again" not in done.stdout


def test_a_second_failure_counts(tmp_path: Path) -> None:
    done = ci(tmp_path, "002", f"echo '{FAILED}'; exit 2", "exit 9", failed=[ONE], again=f"echo '{FAILED}'; exit 4")
    assert done.returncode == 4
    assert done.stdout.rstrip().endswith(f"make test-again: {FAILED}\nfailed with status 4")


@pytest.mark.parametrize("line", ["no summary", FAILED.replace("1 failed", "1 failed, 1 error"), PASSED])
def test_a_run_that_did_not_end_counts(tmp_path: Path, line: str) -> None:
    done = ci(tmp_path, "002", f"echo '{line}'; exit 2", "exit 9", failed=[ONE], again="exit 0")
    assert done.returncode == 2 and "made test-again" not in done.stdout
