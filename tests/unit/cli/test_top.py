"""Tests `syncer top` against a real server, on a pseudo-terminal and through a pipe."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry
from rich.console import Console

from syncer import cli
from syncer.cli.top_screen import Screen
from syncer.config.schema import HttpSettings
from syncer.errors import Retry
from syncer.serving.server import Server
from syncer.serving.services import Services
from tests.harness import terminal
from tests.harness.overview import ExampleOverview
from tests.unit.serving.serving_harness import FakeHealth

ROOT = Path(__file__).parents[3]
TOKEN = "t" * 32


@contextmanager
def daemon(example: ExampleOverview, **settings: Any) -> Iterator[str]:
    """Yields the URL of a server with these values."""
    http = HttpSettings(**{"port": 0, **settings})
    with Server(http, Services(FakeHealth(), example.metrics.registry, overview=example.read)) as server:
        yield server.url


def top(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    """Runs the command without a terminal."""
    return CliRunner().invoke(cli.main, ["top", *arguments], env=environment)


def shown(screen: Screen, columns: int) -> str:
    """Returns the text of a screen on a terminal of this width."""
    console = Console(width=columns, file=io.StringIO(), force_terminal=True, record=True)
    console.print(screen.render(console))
    return console.export_text()


def on_terminal(url: str, steps: Sequence[tuple[str, Callable[[], object]]], key: str) -> terminal.Result:
    """Runs the command on a terminal. When the text of a step appears, takes the step. Presses `key` after the last."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "syncer", "top", "--url", url, "--interval", "0.5"]
    left = list(steps)

    def react(text: str) -> str:
        if not left or left[0][0] not in text:
            return ""
        left.pop(0)[1]()
        return "" if left else key

    done = terminal.run(command, cwd=ROOT, environment=environment, columns=160, react=react)
    assert not left, done.text
    return done


def test_a_pipe_gets_the_values_once() -> None:
    example = ExampleOverview()
    example.work(0, 0)
    example.work(90, 30)
    with daemon(example) as url:
        done = top("--url", url)
    assert done.exit_code == 0, done.output
    assert "shop-1.example, pid 4711, version 1.2.3" in done.stdout
    [orders] = [line.split() for line in done.stdout.splitlines() if line.startswith("orders  ")]
    assert orders[1:9] == ["running", "0.2", "s", "12", "3", "45", "15", "0"] and "2 h 0 min ago" in " ".join(orders)
    for line in (
        "orders: resync to generation 2",
        "64 %, 1 min 35 s left",
        "summaries: the read model was changed since its documents were rendered",
        "→ syncer resync summaries",
        "summaries: 2 documents or records are rejected. → syncer dlq list summaries",
        "connector: running; slot syncer_shop retains 3.0 MiB of WAL of 1.0 GiB",
    ):
        assert line in done.stdout
    assert "q: quit" not in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl-C"])
def test_a_terminal_is_updated_until_a_key_ends_it(key: str) -> None:
    example = ExampleOverview()
    example.models["orders"].values["lag_records"] = 1111
    with daemon(example) as url:
        update = partial(example.models["orders"].values.update, lag_records=2222)
        done = on_terminal(url, [("1,111", update), ("2,222", lambda: None)], key)
    assert done.status == 0, done.text
    assert "q: quit" in done.text and "Traceback" not in done.text


def test_a_terminal_survives_a_restart_of_the_daemon() -> None:
    example, running = ExampleOverview(), ExitStack()
    url = running.enter_context(daemon(example))
    port = int(url.rpartition(":")[2])

    def restart() -> None:
        example.models["orders"].values["lag_records"] = 9999
        running.enter_context(daemon(example, port=port))

    with running:
        steps = [("q: quit", running.close), ("does not answer since", restart), ("9,999", lambda: None)]
        assert on_terminal(url, steps, "q").status == 0


def test_a_daemon_that_does_not_answer_is_a_clear_error() -> None:
    done = top("--url", "http://127.0.0.1:1")
    assert done.exit_code == 4
    assert "no daemon answers" in done.output and "Connection refused" in done.output and "syncer run" in done.output
    assert "<urllib3" not in done.output


def test_without_a_url_the_address_comes_from_the_configuration(tmp_path: Path) -> None:
    def run(**http: Any) -> Result:
        settings = {"SYNCER_POSTGRES__DSN": "host=x", "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "x:1"}
        settings["SYNCER_KAFKA__TOPIC_PREFIX"] = "x"
        return top(environment=settings | {f"SYNCER_HTTP__{name.upper()}": str(value) for name, value in http.items()})

    example = ExampleOverview()
    with daemon(example, host="0.0.0.0", read_token=TOKEN) as url:
        port = url.rpartition(":")[2]
        done = run(host="0.0.0.0", port=port, read_token=TOKEN)
        assert done.exit_code == 0 and "pid 4711" in done.stdout, done.output
        wrong = run(host="0.0.0.0", port=port, read_token="w" * 32)
        assert wrong.exit_code == 3 and "the token is wrong" in wrong.output and "w" * 32 not in wrong.output
        missing = top("--url", f"http://127.0.0.1:{port}")
        assert missing.exit_code == 3 and "a token is required" in missing.output
        assert "SYNCER_HTTP__READ_TOKEN" in missing.output
    unknown = run(port=0)
    assert unknown.exit_code == 3 and "--url" in unknown.output


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "nonsense::", "http://[::1"])
def test_an_invalid_url_is_a_clear_error(url: str) -> None:
    done = top("--url", url)
    assert done.exit_code in (3, 4) and done.exception.__class__ is SystemExit, done.output


def test_another_server_is_no_daemon() -> None:
    with Server(HttpSettings(port=0), Services(FakeHealth(), CollectorRegistry())) as server:
        done = top("--url", server.url)
    assert done.exit_code == 3
    assert "this is not a daemon of this version" in done.output and "status 404 for /overview" in done.output


@pytest.mark.parametrize("columns", [40, 80, 120, 160])
def test_a_narrow_terminal_leaves_out_columns(columns: int) -> None:
    screen = Screen()
    screen.show(ExampleOverview().read())
    text = shown(screen, columns)
    lines = text.splitlines()
    [header] = [line for line in lines if line.startswith("model")]
    assert "lag" in header and ("lag of 15 minutes" in header) == (columns >= 160)
    assert any("running" in line and "0.2 s" in line for line in lines if line.startswith("orders"))


def test_a_silent_daemon_keeps_its_last_values() -> None:
    screen, example = Screen(), ExampleOverview()
    screen.show(example.read())
    screen.show_silence(Retry("no daemon answers", why="Connection refused"))
    text = shown(screen, 160)
    assert "The daemon does not answer since" in text and "Connection refused" in text and "running" in text
    screen.show(example.read())
    assert "does not answer" not in shown(screen, 160)


def test_the_line_shows_the_highest_lag() -> None:
    screen, example = Screen(), ExampleOverview()
    for lag in (0.0, 40.0, 0.0):
        example.models["orders"].values["lag_seconds"] = lag
        example.work(0, 0)
        screen.show(example.read(screen.last))
    text = shown(screen, 200)
    [line] = [line for line in text.splitlines() if line.startswith("orders ")]
    assert "█" in line and "max 40 s" in line
