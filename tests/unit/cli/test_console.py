"""Tests that output is printed unchanged: rich must not interpret markup or emoji codes in names and errors."""

from __future__ import annotations

import ast
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.tree import Tree

from bench.report import Figure, Report
from syncer import cli
from syncer.cli import output
from syncer.cli.progress import Progress
from syncer.errors import Fatal, Retry
from tests.harness.terminal import run as run_on_a_terminal

REPOSITORY = Path(__file__).parents[3]
SOURCES = [path for top in ("syncer", "demo", "devstack", "bench") for path in (REPOSITORY / top).rglob("*.py")]
HOSTILE = r"customer:id:{id} :smile: [bold]x[/bold] [/] [link=y]z[/link] C:\[d] \ "
HOSTILE = HOSTILE.strip()
MODEL = "name: a\nroot: {table: t}\ndocument: {id: id}\nsink: {memory: {}}\n"
SETTINGS = """\
postgres: {dsn: host=127.0.0.1 port=1 dbname=x user=x}
kafka: {bootstrap_servers: "127.0.0.1:1", topic_prefix: x}
"""
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


@pytest.fixture(params=["terminal", "pipe"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Makes rich write as to a terminal, or as to a pipe. Returns True for the terminal."""
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    return bool(request.param == "terminal")


def shown_text(capsys: pytest.CaptureFixture[str], *, styled: bool) -> str:
    """Returns standard output and error without styles."""
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert bool(_STYLE.search(text)) == styled, "the test must see the output for a terminal, or for a pipe"
    return _STYLE.sub("", text)


def test_texts_are_printed_unchanged(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    output.echo(HOSTILE, style="bold")
    assert shown_text(capsys, styled=terminal) == f"{HOSTILE}\n"
    output.echo(HOSTILE, err=True, style="red")
    assert shown_text(capsys, styled=terminal) == f"{HOSTILE}\n"
    output.code(f'["{HOSTILE}"]', "json")
    assert shown_text(capsys, styled=terminal).strip() == f'["{HOSTILE}"]'


@pytest.mark.parametrize("kind", [Fatal, Retry])
def test_errors_are_printed_unchanged(
    terminal: bool, capsys: pytest.CaptureFixture[str], kind: type[Fatal | Retry]
) -> None:
    output.echo_error(kind(HOSTILE, where=HOSTILE, why=f"{HOSTILE}\n{HOSTILE}", hint=HOSTILE))
    label = "error" if kind is Fatal else "temporary error"
    assert shown_text(capsys, styled=terminal) == (
        f"{label}: {HOSTILE}\n  where: {HOSTILE}\n  why:   {HOSTILE}\n         {HOSTILE}\n  → {HOSTILE}\n"
    )


def test_tables_and_trees_are_printed_unchanged(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for whole in (False, True):
        output.table([HOSTILE, ""], [[HOSTILE, 1]], right=(1,), whole=whole)
        assert shown_text(capsys, styled=terminal).count(HOSTILE) == 2
    tree = Tree(HOSTILE)
    tree.add(f"{HOSTILE}: text")
    output.draw(tree)
    assert capsys.readouterr().out == f"{HOSTILE}\n└── {HOSTILE}: text\n"


def test_progress_is_printed_unchanged(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("document") as progress:
        progress.update(HOSTILE, 1, 2, HOSTILE)
        progress.echo(HOSTILE)
    text = shown_text(capsys, styled=terminal)
    lines = re.split(r"[\r\n]+", text)
    assert HOSTILE in lines
    assert any(line.startswith(HOSTILE) and line.endswith(HOSTILE) and "1" in line for line in lines)


def test_benchmarks_are_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report({})
    report.add(Figure(HOSTILE, HOSTILE, [1.0], "s"))
    report.remarks.append(HOSTILE)
    report.print(output.console())
    assert capsys.readouterr().out.count(HOSTILE) == 3


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yields all commands except groups, with their paths."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if found := command.get_command(context, name):
            yield from commands(found, (*path, name))


COMMANDS = list(commands(cli.main))
TAKE_NAMES = [
    (path, found)
    for path, found in COMMANDS
    if any(isinstance(one, click.Argument) for one in found.params)
    and path not in (("verify",), ("dlq", "show"), ("dlq", "replay"), ("dlq", "drop"))  # these read Kafka first
]


def required_options(command: click.Command) -> list[str]:
    """Returns the options without which the command does not start, each with a value."""
    options = [one for one in command.params if isinstance(one, click.Option) and one.required]
    return [text for one in options for text in (one.opts[0], HOSTILE)]


def shown(*arguments: str) -> str:
    """Returns the output of a command on a terminal, without styles."""
    return _STYLE.sub("", CliRunner().invoke(cli.main, arguments).output)


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_every_command_prints_the_path_of_its_configuration_unchanged(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path in (("config", "schema"), ("config", "docs")):
        return  # these read no configuration
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = tmp_path / HOSTILE.replace("/", "|") / "syncer.yaml"
    arguments = [HOSTILE] * sum(
        one.nargs == 1 or one.required for one in dict(COMMANDS)[path].params if isinstance(one, click.Argument)
    )
    arguments += required_options(dict(COMMANDS)[path])
    assert f"where: {file}\n" in shown("-c", str(file), *path, *arguments)


@pytest.mark.parametrize(("path", "command"), TAKE_NAMES, ids=[" ".join(path) for path, _ in TAKE_NAMES])
def test_every_command_prints_an_unknown_name_unchanged(
    path: tuple[str, ...], command: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    folder = tmp_path / HOSTILE.replace("/", "|")
    (folder / "readmodels").mkdir(parents=True)
    (folder / "readmodels" / "a.yaml").write_text(MODEL)
    file = folder / "syncer.yaml"
    file.write_text(SETTINGS)
    given = [HOSTILE] * sum(one.required for one in command.params if isinstance(one, click.Argument))
    text = shown("-c", str(file), *path, *(given or [HOSTILE]), *required_options(command))
    assert f"there is no read model called {HOSTILE}\n  where: {folder / 'readmodels'}\n" in text


def test_only_one_function_creates_consoles_and_none_reads_markup() -> None:
    """`Console(…)` and the columns of a progress bar interpret markup and emoji codes by default."""
    for path in SOURCES:
        name = str(path.relative_to(REPOSITORY))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            where = f"{name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                assert node.module not in ("rich", "rich.markup", "rich.prompt", "rich.logging"), where
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("from_markup", "render_str"), where
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", "")
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert "True" not in (keywords.get("markup"), keywords.get("emoji")), where
                if called == "TextColumn":
                    assert keywords.get("markup") == "False", where
                if called in ("Console", "_Console"):
                    assert name == "syncer/cli/output.py", f"{where}: use output.console()"
    assert output.console().render_str(HOSTILE).plain == HOSTILE


def test_commands_to_run_next_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They use the same configuration, and the path of the program if it is not on the PATH."""
    assert output.runnable("→ syncer check") == "→ syncer check"  # outside a command
    file = tmp_path / "my syncer.yaml"
    file.write_text("postgres: {dsn: dbname=x}\nkafka: {bootstrap_servers: x, topic_prefix: x}\n")
    program = tmp_path / "bin" / "syncer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])

    @click.command
    @click.pass_context
    def shown(context: click.Context) -> None:
        context.ensure_object(cli.context.Context).file = file
        output.echo("another syncer: syncer check, then syncer resync a; see config/syncer check.yaml")
        output.echo_error(Fatal("x", hint="syncer status"))

    for on_the_path in (True, False):
        monkeypatch.setenv("PATH", str(program.parent if on_the_path else tmp_path))
        called = f"{'syncer' if on_the_path else program} -c '{file}'"
        assert CliRunner().invoke(shown).output == (
            f"another syncer: {called} check, then {called} resync a; see config/syncer check.yaml\n"
            f"error: x\n  → {called} status\n"
        )


def test_backfill_does_not_ask_for_confirmation(tmp_path: Path) -> None:
    """A question would stop `make demo` and the steps of the README."""
    (tmp_path / "readmodels").mkdir()
    (tmp_path / "readmodels" / "a.yaml").write_text(MODEL)
    (tmp_path / "syncer.yaml").write_text(SETTINGS)
    command = [sys.executable, "-m", "syncer", "-c", "syncer.yaml", "backfill"]
    shown = run_on_a_terminal(command, cwd=tmp_path, environment={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert (shown.status, "[y/N]" in shown.text) == (output.UNAVAILABLE, False), shown.text
    assert "cannot connect to PostgreSQL" in shown.text


def test_a_narrow_terminal_shows_long_errors_completely(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=20, soft_wrap=True, markup=False, emoji=False)
    monkeypatch.setattr(output, "console", lambda **_: out)
    output.echo_error(Fatal("x" * 50, hint="y" * 50))
    assert isinstance(out.file, io.StringIO)
    assert "x" * 50 in out.file.getvalue() and "y" * 50 in out.file.getvalue()
