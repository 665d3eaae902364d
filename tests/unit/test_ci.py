"""What `.ci/run` reports of its two parts, with a `make` that only prints."""

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"
PASSED = "===== 3 passed in 0.1s ====="
FAILED = "===== 1 failed, 2 passed in 0.1s ====="
MAKE = """#!/bin/sh
echo "made $*"
case "$1" in
    test) {tests} ;;
    test-version) {version} ;;
esac
"""


@pytest.mark.parametrize(
    ("tests", "version", "status", "end"),
    [
        (
            f"echo '{PASSED}'",
            f"echo '{PASSED}'",
            0,
            f"make test: {PASSED}\nmake test-version VERSION=17: {PASSED}",
        ),
        (f"echo '{FAILED}'; exit 1", "", 1, f"make test: {FAILED}\nfailed with status 1"),
        (
            f"echo '{PASSED}'",
            f"echo '{FAILED}'; exit 2",
            2,
            f"make test: {PASSED}\nmake test-version VERSION=17: {FAILED}\nfailed with status 2",
        ),
        ("exit 2", "", 2, "make test: pytest did not get to its end\nfailed with status 2"),
        ("kill -9 $$", "", 137, "make test: pytest did not get to its end\nfailed with status 137"),
    ],
)
def test_a_failure_of_either_part_fails_the_run(
    tmp_path: Path, tests: str, version: str, status: int, end: str
) -> None:
    make = tmp_path / "make"
    make.write_text(MAKE.format(tests=tests, version=version or "exit 9"))
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "VERSION": "17"}
    done = subprocess.run([RUN], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert done.stdout.rstrip().endswith(f"\n\n{end}")


def test_each_day_has_its_version_which_can_be_chosen_again(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text(MAKE.format(tests=f"echo '{PASSED}'", version=f"echo '{PASSED}'"))
    make.chmod(0o755)
    (tmp_path / "date").write_text('#!/bin/sh\necho "$DAY"\n')
    (tmp_path / "date").chmod(0o755)
    chosen = []
    for day in ("001", "002", "003", "008", "366"):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DAY": day}
        environment.pop("VERSION", None)
        done = subprocess.run([RUN], env=environment, capture_output=True, text=True, timeout=60, check=True)
        chosen.append(done.stdout.partition("\nmake test-version VERSION=")[2][:2])
    assert chosen == ["16", "17", "18", "14", "17"]
