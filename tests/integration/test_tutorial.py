"""Runs the commands of docs/tutorial.md, in their order, on real servers, and compares what they print with the page.

`UPDATE_TUTORIAL=1` writes the output of this run into the page instead.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import redis

from demo import place
from devstack import Stack
from tests.harness.database import delete_connectors, drop_slots
from tests.harness.names import remove_connectors, remove_indexes, remove_keys, remove_topics

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
NAME = "library"
"""Prefix of all names that the tutorial creates."""
SECONDS = 300
"""Timeout of all commands. They take less than a minute on an idle machine."""


class Block(NamedTuple):
    """A fenced block of the page."""

    language: str
    text: str


def blocks() -> list[Block]:
    """Returns the fenced blocks in their order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*one) for one in found]


def shell(block: Block) -> str:
    """Returns the block as a reader would run it: SQL in psql, YAML saved under the name in its first line."""
    if block.language == "sql":
        return f'psql -q "$SYNCER_POSTGRES__DSN" -v ON_ERROR_STOP=1 <<"END_OF_SQL"\n{block.text}END_OF_SQL\n'
    if block.language == "yaml":
        name = re.match(r"# (\S+\.yaml)\n", block.text)
        assert name, f"the first line has no file name: {block.text}"
        return f'cat > {name[1]} <<"END_OF_FILE"\n{block.text}END_OF_FILE\n'
    return block.text


def script(found: list[Block]) -> str:
    """Returns one script. It prints a mark with a number before the output of each block."""
    parts = [f"printf '\\036%d\\n' {at}\n{shell(one)}" for at, one in enumerate(found) if one.language != "text"]
    return "set -euo pipefail\n" + "".join(parts)


@pytest.fixture
def environment(stack: Stack, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yields the variables of `. .devstack/env`. Removes everything that the tutorial has created."""
    connectors = tmp_path / "connectors"
    connectors.mkdir()
    shutil.copy(ROOT / "connectors" / "shop.json", connectors)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("SYNCER_", "SHOP_"))}
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{outside.get('PATH', os.defpath)}"
    yield {**outside, **place.environment(stack, stack.postgres), "PATH": path, "PYTHONPATH": str(ROOT)}
    delete_connectors(stack.connect, NAME)
    remove_connectors(stack.connect, NAME)
    with psycopg.connect(stack.postgres, autocommit=True) as admin:
        drop_slots(admin, NAME)
        admin.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)".encode())
    remove_topics(stack.kafka, NAME)
    remove_indexes(stack.elasticsearch, NAME)
    remove_keys(stack.redis, f"*{NAME}:")


def test_the_commands_of_the_tutorial_print_the_output_on_the_page(
    stack: Stack, environment: dict[str, str], tmp_path: Path
) -> None:
    found = blocks()
    runnable = [one for one in found if one.language != "console"]  # the fixture replaces `make stack`
    assert {one.language for one in runnable} == {"sh", "sql", "yaml", "text"}
    process = subprocess.Popen(
        ["bash", "-c", script(runnable)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the tutorial starts a daemon, which must end with the shell
    )
    try:
        printed, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, errors = process.communicate()
    log = tmp_path / NAME / "syncer.log"
    assert process.returncode == 0, f"{printed}\n{errors}\n{log.read_text() if log.exists() else ''}"
    outputs = {int(at): text for at, text in re.findall(r"\036(\d+)\n([^\036]*)", printed)}
    shown = {at - 1: one.text for at, one in enumerate(runnable) if one.language == "text"}
    if os.environ.get("UPDATE_TUTORIAL"):
        page = PAGE.read_text("utf-8")
        for at, text in shown.items():
            page = page.replace(f"```text\n{text}```", f"```text\n{outputs[at]}```", 1)
        PAGE.write_text(page, "utf-8")
        return
    # curl ends its output without a line break
    assert {at: outputs[at].rstrip("\n") for at in shown} == {at: text.rstrip("\n") for at, text in shown.items()}
    nothing_is_left(stack)


def nothing_is_left(stack: Stack) -> None:
    """Checks that the last section removes everything outside of Kafka."""
    with psycopg.connect(stack.postgres) as admin:
        assert not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone()
        assert not admin.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [NAME]).fetchone()
    with redis.Redis.from_url(stack.redis) as client:
        assert not list(client.scan_iter(f"*{NAME}:*", count=1000))
