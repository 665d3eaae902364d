"""Tests the command line without servers: help, errors, exit codes and output."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from syncer import cli
from syncer.cli import output
from syncer.cli.progress import Progress
from syncer.config import schema as config
from syncer.connect.lookup import find_definition
from syncer.errors import Fatal, Reject, Retry, Unknown
from syncer.quantities import counted

REPOSITORY = Path(__file__).parents[3]
SETTINGS = """\
postgres: {dsn: "postgresql://app:hunter2@127.0.0.1:1/shop", connect_timeout: 2}
kafka: {bootstrap_servers: "127.0.0.1:1", topic_prefix: shop}
redis: {url: "redis://:hunter2@127.0.0.1:1/0"}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "syncer.yaml"
    path.write_text(SETTINGS)
    return path


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*path, name))


ALL = list(walk(cli.main, ("syncer",)))


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_a_description_and_examples(path: tuple[str, ...], option: str) -> None:
    result = CliRunner().invoke(cli.main, [*path[1:], option])
    assert result.exit_code == 0, result.output
    assert f"Usage: {' '.join(path)}" in result.output
    examples = result.output.partition("Examples:\n")[2]
    assert " ".join(path) in examples
    assert "\b" not in result.output, "a control character is printed"
    assert not re.search(r"[a-z]\.\.\.\n", result.output), "the first line of a command is cut in the list"
    assert all(len(line) <= 110 for line in result.output.splitlines())


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_option_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    assert command.get_short_help_str()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_help_explains_exit_codes() -> None:
    text = CliRunner().invoke(cli.main, ["--help"]).output
    for code in range(5):
        assert f"\n    {code}  " in text


def test_unknown_commands_and_options_end_with_exit_code_2() -> None:
    assert CliRunner().invoke(cli.main, ["exlpain"]).exit_code == 2
    assert CliRunner().invoke(cli.main, ["explain"]).exit_code == 2
    assert CliRunner().invoke(cli.main, ["status", "--nope"]).exit_code == 2


def test_common_options_work_before_and_after_the_command(settings: Path) -> None:
    for line in (["-c", str(settings), "config", "show"], ["config", "show", "-c", str(settings)]):
        result = CliRunner().invoke(cli.main, [*line, "--log-level", "debug"])
        assert result.exit_code == 0, result.output
        assert "hunter2" not in result.output
        rows = {row.split()[0]: row.split()[1:] for row in result.output.splitlines()}
        assert rows["log.level"] == ["debug", "command", "line"]
        assert rows["kafka.topic_prefix"] == ["shop", f"{settings}:2"]
        assert rows["redis.url"][0] == "redis://:***@127.0.0.1:1/0"


def test_settings_as_json_mask_secrets(settings: Path) -> None:
    result = CliRunner().invoke(cli.main, ["config", "show", "--json", "-c", str(settings)])
    assert json.loads(result.stdout)["postgres"]["password"] == "***"
    assert "hunter2" not in result.output


def test_wrong_settings_end_with_exit_code_3(settings: Path) -> None:
    settings.write_text(SETTINGS + "htpp: {}\n")
    result = CliRunner().invoke(cli.main, ["config", "show", "-c", str(settings)])
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "there is no setting htpp" in result.stderr and "did you mean http?" in result.stderr
    assert "Traceback" not in result.output
    result = CliRunner().invoke(cli.main, ["config", "show", "--debug", "-c", str(settings)])
    assert isinstance(result.exception, Fatal)


def test_errors_name_the_variables_of_missing_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = CliRunner().invoke(cli.main, ["status"]).stderr
    assert "as SYNCER_POSTGRES__DSN\n" in text
    assert "as SYNCER_KAFKA__BOOTSTRAP_SERVERS and SYNCER_KAFKA__TOPIC_PREFIX\n" in text
    assert all(line.partition("why:")[2].strip() for line in text.splitlines() if "why:" in line)
    monkeypatch.setenv("SYNCER_POSTGRES__DSN", "dbname=shop")
    monkeypatch.setenv("SYNCER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    text = CliRunner().invoke(cli.main, ["status"]).stderr
    assert "kafka.topic_prefix is missing" in text and "as SYNCER_KAFKA__TOPIC_PREFIX\n" in text
    monkeypatch.setenv("SYNCER_KAFKA__TOPIC_PREFIX", "shop")
    text = CliRunner().invoke(cli.main, ["status"]).stderr
    assert f"where: {tmp_path / 'readmodels'}\n" in text and "start at the current folder" in text
    with pytest.raises(Fatal) as caught:
        find_definition(config.load())
    assert caught.value.where == str(tmp_path / "connectors")
    assert (
        "the folder of connector definitions does not exist" in caught.value.what
        and "SYNCER_CONNECT__DEFINITIONS" in caught.value.hint
    )


def test_help_runs_the_sql_with_a_psql_that_stops_at_errors() -> None:
    text = CliRunner().invoke(cli.main, ["check", "--help"]).output
    assert "psql -v ON_ERROR_STOP=1" in text  # psql -1 cannot run CREATE INDEX CONCURRENTLY


def test_an_unreachable_server_ends_with_exit_code_4(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.yaml").write_text(
        "name: a\nroot: {table: public.a}\ndocument: {id: id}\nsink: {redis: {key: 'a:{id}'}}\n"
    )
    line = ["-c", str(settings), "--models", str(tmp_path / "models"), "explain", "a"]
    result = CliRunner().invoke(cli.main, line)
    assert result.exit_code == 4, result.output
    assert "cannot connect to PostgreSQL" in result.stderr and "hunter2" not in result.output
    result = CliRunner().invoke(cli.main, [*line[:-1], "b"])
    assert result.exit_code == 2 and "there is no read model called b" in result.stderr


@pytest.mark.parametrize(("typed", "meant"), [("verfy", "verify"), ("stat", "status")])
def test_an_unknown_command_gets_the_nearest_name(typed: str, meant: str) -> None:
    result = CliRunner().invoke(cli.main, [typed])
    assert result.exit_code == 2 and f"No such command '{typed}'. Did you mean '{meant}'" in result.output


def test_status_names_every_server_that_does_not_answer(settings: Path, tmp_path: Path) -> None:
    """PostgreSQL and Kafka Connect accept a connection and do not answer. Kafka and Redis refuse connections."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.yaml").write_text(
        "name: a\nroot: {table: public.a}\ndocument: {id: id}\nsink: {redis: {key: 'a:{id}'}}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        text = SETTINGS.replace("127.0.0.1:1/shop", f"{address}/shop")
        definitions = REPOSITORY / "connectors"
        settings.write_text(f'{text}connect: {{url: "http://{address}", definitions: {definitions}}}\n')
        line = ["-c", str(settings), "--models", str(tmp_path / "models"), "status"]
        result = CliRunner().invoke(cli.main, line)
        shown = json.loads(CliRunner().invoke(cli.main, [*line, "--json"]).stdout)
    assert result.exit_code == 4 and "cannot list topics" in result.stderr
    for words in (  # the client's own time limit may end first, and on a slow machine a refusal may come after the 2 s
        r"PostgreSQL does not answer: no answer within 2 s|cannot connect to PostgreSQL: connection timeout expired",
        rf"http://{address}: Kafka Connect (does not answer: no answer within 2 s|is unreachable)",
        r"Redis at redis://127\.0\.0\.1:1/0: Redis ",
    ):
        assert re.search(words, result.stdout), result.stdout
        assert any(re.search(words, problem) for problem in shown["problems"]), shown["problems"]
    assert shown["models"] == [] and shown["source"]["connector"]["state"] == "unknown"
    assert "hunter2" not in result.output


def test_a_closed_pipe_or_full_disk_ends_a_command_without_a_traceback(settings: Path) -> None:
    command = [sys.executable, "-m", "syncer", "config", "show", "-c", str(settings)]
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does after its last line
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")
    failing = [*command[:-1], str(settings / "none")]
    assert subprocess.run(failing, stdout=writer, stderr=writer).returncode == 128 + signal.SIGPIPE
    os.close(writer)
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 3
    assert ended.stderr == "error: the output cannot be written\n  why:   No space left on device\n"


def test_counts_use_singular_and_plural() -> None:
    assert [counted(n, "document") for n in (0, 1, 2000)] == [
        "0 documents",
        "1 document",
        "2,000 documents",
    ]


def test_errors_print_what_where_why_and_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo_error(Fatal("no [table]", where="a.yaml:3", why="x://u:hunter2@h", hint="syncer check"))
    assert capsys.readouterr().err == ("error: no [table]\n  where: a.yaml:3\n  why:   x://u:***@h\n  → syncer check\n")
    assert [output.exit_code(e("x")) for e in (Fatal, Reject, Retry, Unknown)] == [3, 3, 4, 2]


def test_tables_are_aligned_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name", "count"], [("orders", 5), ("[red]", 1234), (None, 0)], right=(1,))
    assert capsys.readouterr().out == "name    count\norders      5\n[red]    1234\n            0\n"


def test_a_whole_table_wraps_no_cell_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapped state would be easy to misread."""
    out = Console(file=io.StringIO(), force_terminal=True, width=40, soft_wrap=True, color_system=None)
    monkeypatch.setattr(output, "console", lambda: out)
    row = ["department_bed_load", "running", "0.0 s", "2026-11-21 19:46"]
    output.table(["model", "state", "lag", "backfill (UTC)"], [row], right=(2,), whole=True)
    assert isinstance(out.file, io.StringIO)
    shown = out.file.getvalue()
    assert len(shown.splitlines()) == 2 and all(cell in shown for cell in row)


def test_pretty_json_keeps_every_digit() -> None:
    text = '{"a": 1.10, "b": 12345678901234567890.123456789, "c": [], "d": [1, {"e": "é\\n"}], "f": null}'
    assert output.pretty(text) == (
        '{\n  "a": 1.10,\n  "b": 12345678901234567890.123456789,\n  "c": [],\n'
        '  "d": [\n    1,\n    {\n      "e": "é\\n"\n    }\n  ],\n  "f": null\n}'
    )


def test_progress_in_a_pipe_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("document") as progress:
        progress.update("orders", 0, 0, "planning")
        for done in range(0, 1001, 10):
            time.sleep(0.0005)
            progress.update("orders", done, 1000)
        progress.echo("orders: done")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "orders: 0 documents, planning"
    assert lines[-2].startswith("orders: 1,000 of 1,000 documents (100%), ") and lines[-2].endswith("/s")
    assert lines[-1] == "orders: done"
    assert len(lines) < 6


def test_progress_in_a_pipe_prints_no_line_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncer.cli.progress.EVERY", 0.0)
    with Progress("document") as progress:
        for done in (0, 0, 0, 7, 7):
            progress.update("orders", done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == "orders: 0 of 1,000 documents (0%)" and lines[1].startswith("orders: 7 of")


def test_a_note_with_another_number_is_no_new_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("document") as progress:
        for left in (12_345, 999, 1):
            progress.update("orders", 5, 5, f"catching up, {left:,} changes left")
        progress.update("orders", 5, 5, "switching readers")
    assert [line.rpartition("), ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "catching up, 12,345 changes left",
        "switching readers",
    ]


def test_progress_has_the_noun_of_each_label(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("document") as progress:
        progress.update("orders", 0, 1)
        progress.update("customers", 1, 0)
        progress.update("devices", 5, 20, unit="partial")
    assert capsys.readouterr().err.splitlines() == [
        "orders: 0 of 1 document (0%)",
        "customers: 1 document",
        "devices: 5 of 20 partials (25%)",
    ]


def test_a_bar_has_the_noun_of_its_label() -> None:
    stream = io.StringIO()
    with Progress("document", console=Console(file=stream, force_terminal=True, width=120)) as progress:
        progress.update("devices", 5, 20, unit="partial")
    assert "20 partials" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_progress_on_a_terminal_is_a_bar() -> None:
    stream = io.StringIO()
    with Progress("document", console=Console(file=stream, force_terminal=True, width=120)) as progress:
        progress.update("orders", 0, 1000)
        time.sleep(0.01)
        progress.update("orders", 500, 1000)
    assert "orders" in stream.getvalue() and "500/1000" in stream.getvalue() and "━" in stream.getvalue()


def printed(*arguments: str) -> str:
    """Returns the output of `python -m` with these arguments. That process does not see the sink of the tests."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def test_schema_of_the_file_is_current_and_accepts_it() -> None:
    written = (REPOSITORY / "config" / "syncer.schema.json").read_text("utf-8")
    assert written == printed("syncer", "config", "schema"), "run: syncer config schema > config/syncer.schema.json"
    schema = json.loads(written)
    jsonschema.Draft202012Validator.check_schema(schema)
    shipped = yaml.safe_load((REPOSITORY / "config" / "syncer.yaml").read_text("utf-8"))
    jsonschema.validate(shipped, schema)
    jsonschema.validate({"postgres": {"password_file": "/run/x"}, "pipeline": {"max_bytes": "8MiB"}}, schema)
    mistakes: list[dict[str, object]] = [
        {"pipline": {}},
        {"kafka": {"partitions": 0}},
        {"redis": {"nope": 1}},
    ]
    for wrong in mistakes:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_reference_of_settings_is_current() -> None:
    written = (REPOSITORY / "docs" / "configuration.md").read_text("utf-8")
    assert written == printed("syncer", "config", "docs"), "run: syncer config docs > docs/configuration.md"


def test_reference_of_commands_is_current() -> None:
    written = (REPOSITORY / "docs" / "cli.md").read_text("utf-8")
    assert written == printed("syncer.cli.reference"), "run: python -m syncer.cli.reference > docs/cli.md"
    for path, _ in ALL:
        assert f"# `{' '.join(path)}`\n" in written


def test_a_sink_name_is_not_printed_as_an_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo_error(Fatal("the index is missing", where="redis:bed:{id}"))
    assert "where: redis:bed:{id}\n" in capsys.readouterr().err
