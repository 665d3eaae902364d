"""`make demo` in a terminal and through a pipe, the demo that KEEP=1 leaves running, and its removal."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import stack as devstack
from tests.harness import terminal
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
SMALL = {"ORDERS": "1000", "LIVE_SECONDS": "1"}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Returns the environment of a user whose settings name another deployment. The demo must not touch it."""
    elsewhere = {"SYNCER_MODELS": "/nowhere", "SYNCER_KAFKA__GROUP_PREFIX": "mine", "SHOP_PGPORT": "1"}
    chosen = {**os.environ, **SMALL, **elsewhere, "DEMO_HOME": str(tmp_path / "demo")}
    yield chosen
    subprocess.run(["make", "demo-down"], cwd=ROOT, env=chosen, check=True)


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line pasted into a shell, in another folder."""
    return subprocess.run(
        ["bash", "-c", command], cwd="/", capture_output=True, text=True, env={**os.environ, **environment}
    )


def pasted(text: str) -> list[str]:
    """Returns the commands that the demo prints for pasting."""
    return re.findall(r"(?m)^  (\S.*)$", text.partition("in any terminal:\n")[2].partition("To stop")[0])


def test_a_kept_demo_outlives_its_terminal_and_its_printed_commands_work(
    environment: dict[str, str],
) -> None:
    shown = terminal.run(["make", "demo"], cwd=ROOT, environment=environment | {"KEEP": "1"})
    assert shown.status == 0, shown.text
    assert "[y/N]" not in shown.text
    assert "Nothing differs." in shown.text
    assert re.search(r"committed → readable in Redis after \d+ ms \(customer:1:summary\)", shown.text)
    assert re.search(r"(?s)\$ syncer status.* 0\.\d s .* 0\.\d s ", shown.text)
    home = Path(environment["DEMO_HOME"])
    kept = devstack.load(home)
    assert (len(kept.running()), kept.clients["syncer"].alive()) == (5, True)
    first, *others = pasted(shown.text)
    assert first.startswith(". ") and len(others) >= 9
    for command in others:
        done = run(f"{first}\n{command}")
        assert (done.returncode, done.stderr) == (0, "") and done.stdout, f"{command}: {done}"
        assert "not_found" not in done.stdout and '"found" : false' not in done.stdout, f"{command}: {done}"
    until(lambda: "Your Name" in run(f"{first}\n{others[-1]}").stdout, "the changed name is read")
    again = terminal.run(["make", "demo"], cwd=ROOT, environment=environment)
    assert again.status == 2 and "To stop it: make demo-down" in again.text
    assert len(kept.running()) == 5, "a second demo stops the first"
    down = terminal.run(["make", "demo-down"], cwd=ROOT, environment=environment)
    assert (down.status, down.text.count("\n")) == (0, 1), down.text
    assert not kept.running() and not kept.clients["syncer"].alive()
    assert not home.exists() and not kept.site.data.exists()


@pytest.mark.full
@pytest.mark.parametrize("piped", [False, True], ids=["terminal", "piped"])
def test_a_demo_stops_and_deletes_everything_it_started(environment: dict[str, str], piped: bool) -> None:
    if piped:
        done = subprocess.run(["make", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        status, text = done.returncode, done.stdout
        assert "\x1b" not in text and done.stderr.count("documents")
    else:
        shown = terminal.run(["make", "demo"], cwd=ROOT, environment=environment)
        status, text = shown.status, shown.text
    assert status == 0, text
    assert "[y/N]" not in text and "Nothing differs." in text
    assert not (Path(environment["DEMO_HOME"]) / devstack.STATE).exists()
    ports = re.findall(r"ready on 127\.0\.0\.1:(\d+)", text)
    assert len(ports) == 5
    assert "pid" not in run("ss -Hltnp " + " or ".join(f"sport = :{port}" for port in ports)).stdout
