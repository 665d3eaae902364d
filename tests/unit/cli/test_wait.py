"""`syncer wait`: what it sends to a daemon, what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from syncer import cli
from syncer.config.schema import HttpSettings
from syncer.operations.through_daemon import default_url
from tests.unit.client.client_harness import SmallServer

SETTINGS = """\
postgres: {dsn: "postgresql://app@127.0.0.1:1/shop"}
kafka: {bootstrap_servers: "127.0.0.1:1", topic_prefix: shop}
http: {read_token: rrrrrrrrrrrrrrrr}
"""
WATERMARK = {"taken_at": "2026-03-01T12:00:00Z", "clock": 812, "generation": 1, "lsn": "0/1"}
REACHED = {"model": "orders", "staleness_seconds": 0.24, "watermark": WATERMARK, "watermark_reason": ""}


@pytest.fixture
def server() -> Iterator[SmallServer]:
    server = SmallServer()
    yield server
    server.close()


def run(tmp_path: Path, url: str, *arguments: str) -> Result:
    settings = tmp_path / "syncer.yaml"
    settings.write_text(SETTINGS)
    return CliRunner().invoke(cli.main, ["-c", str(settings), "wait", "orders", "--url", url, *arguments])


def test_a_reached_commit_prints_the_watermark_and_the_staleness(server: SmallServer, tmp_path: Path) -> None:
    server.respond = lambda *_: (200, REACHED)
    done = run(tmp_path, server.url, "--token", "x:7341", "--timeout", "2", "--searchable")
    assert done.exit_code == 0
    assert "watermark is of 2026-03-01T12:00:00Z (clock 812), no document is older than 0.2 s" in done.stdout
    [(method, path, _)] = server.requests
    assert method == "GET"
    assert path == "/wait?model=orders&token=x%3A7341&timeout=2.000&searchable=true"
    assert server.authorization == ["Bearer rrrrrrrrrrrrrrrr"]
    done = run(tmp_path, server.url, "--json")
    assert json.loads(done.stdout) == {"shown": True, **REACHED}


def test_a_time_out_prints_what_is_wanted_and_reached_and_why(server: SmallServer, tmp_path: Path) -> None:
    fields = {"wanted": 9, "reached": 7, "reason": "the connector is stopped"}
    server.respond = lambda *_: (504, {"error": "behind", "hint": "", **fields})
    done = run(tmp_path, server.url, "--timeout", "0")
    assert done.exit_code == 1
    assert done.stdout == (
        "orders: the commit is not shown after 0 s: the connector is stopped\n  wanted clock 9, reached 7\n"
    )
    done = run(tmp_path, server.url, "--json")
    assert (
        done.exit_code == 1 and {"shown": False, "wanted": 9, "reached": 7}.items() <= json.loads(done.stdout).items()
    )


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (404, 2), (401, 3), (403, 3), (409, 3), (429, 4), (500, 4), (503, 4)]
)
def test_errors_of_the_daemon_have_their_exit_code(server: SmallServer, tmp_path: Path, status: int, code: int) -> None:
    answer: dict[str, Any] = {"error": "that did not work", "hint": "do something else"}
    server.respond = lambda *_: (status, answer)
    done = run(tmp_path, server.url)
    assert (done.exit_code, done.stdout) == (code, "")
    assert "that did not work\n" in done.stderr and "→ do something else" in done.stderr


def test_without_a_daemon_the_exit_code_is_4(tmp_path: Path) -> None:
    done = run(tmp_path, "http://127.0.0.1:1")
    assert done.exit_code == 4
    assert "the daemon does not answer" in done.stderr and "start one: syncer" in done.stderr


@pytest.mark.parametrize("timeout", ["-1", "61", "soon"])
def test_a_time_out_that_no_daemon_accepts_is_wrong_usage(tmp_path: Path, timeout: str) -> None:
    assert run(tmp_path, "http://127.0.0.1:1", "--timeout", timeout).exit_code == 2


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("db.example.org", "http://db.example.org:8080"),
    ],
)
def test_the_default_address_is_that_of_a_daemon_on_this_machine(host: str, url: str) -> None:
    assert default_url(HttpSettings(host=host)) == url
