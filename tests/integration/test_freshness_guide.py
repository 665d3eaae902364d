"""Runs the snippets of "Show a user their own write" in docs/freshness.md, in their order, with a daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.daemon import Daemon
from tests.harness.system import System

PAGE = Path(__file__).parents[2] / "docs" / "freshness.md"
ROOT = Path(__file__).parents[2]


class Block(NamedTuple):
    """A fenced block of the page."""

    language: str
    text: str


def blocks() -> list[Block]:
    """Returns the fenced blocks of the guide, and the statement that reads the suffix of a token."""
    text = PAGE.read_text("utf-8")
    guide = text.partition("\n## Show a user their own write\n")[2].partition("\n## ")[0]
    tokens = text.partition("\n## Name a commit: tokens\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```(\w+)\n(.*?)^```$", guide + tokens, re.MULTILINE | re.DOTALL)
    return [Block(*one) for one in found]


class Reader:
    """Runs blocks as a reader of the page would, on the servers of the test."""

    def __init__(self, system: System, daemon: Daemon) -> None:
        self._replaced = {
            "http://127.0.0.1:9200/orders": f"{system.stack.elasticsearch}/{system.orders}",
            "http://127.0.0.1:8080/models/orders": f"{daemon.url}/models/{system.orders}",
            "http://127.0.0.1:8080": daemon.url,
            "model=orders": f"model={system.orders}",
            "syncer wait orders": f"syncer wait {system.orders}",
            '"orders"': f'"{system.orders}"',
        }
        self.dsn = f"{system.database.dsn}?options=-csearch_path%3D{system.schema}"
        path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._environment = {**os.environ, **system.environment, "DSN": self.dsn, "PATH": path}
        self._environment["PYTHONPATH"] = str(ROOT)

    def shell(self, text: str, token: str = "") -> str:
        done = subprocess.run(
            ["bash", "-euc", self._adapted(text)],
            env={**self._environment, "TOKEN": token},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sql(self, text: str) -> str:
        return self.shell(f'psql -qAt "$DSN" -v ON_ERROR_STOP=1 <<"END_OF_SQL"\n{text}END_OF_SQL\n')

    def python(self, text: str) -> str:
        code = f"DSN = {self.dsn!r}\n{self._adapted(text)}"
        done = subprocess.run(
            [sys.executable, "-c", code], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def _adapted(self, text: str) -> str:
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return text


@pytest.fixture
def reader(system: System) -> Reader:
    system.execute("INSERT INTO {schema}.customers VALUES (1, 'Ada')")
    daemon = system.start()
    system.run("backfill")
    return Reader(system, daemon)


def test_the_snippets_show_a_user_their_own_write(reader: Reader) -> None:
    found = blocks()
    assert [one.language for one in found] == ["python"] * 4 + ["sql", "sh", "sh", "sql"]
    output = reader.python("".join(one.text for one in found[:4])).splitlines()
    assert output[0] in ("placed from the read model", "placed from the refreshed"), output
    assert re.fullmatch(r"no order in this list is older than \d+\.\d s", output[1])
    assert output[2] == "placed"
    update, branches, wait, suffix = (one.text for one in found[4:])
    token = reader.sql(update).strip()
    assert re.fullmatch(r"x:\d+", token)
    assert '"status":"paid"' in reader.shell(branches, token)
    assert "the commit is shown" in reader.shell(wait, token)
    full = token + reader.sql(suffix).strip()
    assert "the commit is shown" in reader.shell(wait, full)


def test_the_shell_snippet_falls_back_to_postgresql_without_a_daemon(reader: Reader, system: System) -> None:
    [system_daemon] = system.daemons
    system_daemon.stop()
    system.execute("INSERT INTO {schema}.orders (id, customer_id, status) VALUES (17, 1, 'new')")
    branches = blocks()[5].text
    assert '"status":"new"' in reader.shell(branches, "now")
