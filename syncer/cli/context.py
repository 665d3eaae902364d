"""What commands share: the common options, the configuration made of them, how a command is declared."""

from __future__ import annotations

import functools
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click

from syncer.config import schema
from syncer.telemetry import logs

F = TypeVar("F", bound=Callable[..., Any])


class Context:
    """Of one invocation; the configuration is read when it is first asked for."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.options: dict[str, Any] = {}
        self.debug = False

    @property
    def invocation(self) -> str:
        """What begins a command for the same read models, typed where this one was: `syncer`, or
        `.venv/bin/syncer -c prod.yaml`."""
        parts = [_program()]
        if self.file:
            parts += ["-c", str(self.file)]
        if "models" in self.options:
            parts += ["--models", str(self.options["models"])]
        return shlex.join(parts)

    @cached_property
    def config(self) -> schema.Config:
        """Raises Fatal for anything wrong in it. Logging follows: warnings only, unless asked for more."""
        loaded = schema.load(self.file, options=self.options)
        logs.configure(self.options.get("log.level", "warning"), loaded.log.format)
        return loaded


def _program() -> str:
    """How the shell finds this program: by its name, or by the path that was typed."""
    typed, found = Path(sys.argv[0]), shutil.which("syncer")
    on_the_path = found is not None and typed.exists() and typed.samefile(found)
    return "syncer" if on_the_path or typed.name != "syncer" else str(typed)


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is None or value is False:
            return
        target = ctx.ensure_object(Context)
        if name in ("file", "debug"):
            setattr(target, name, value)
        else:
            target.options[name] = value

    return callback


def common(function: F, *, hidden: bool = False) -> F:
    """The options that every command takes; listed by `syncer --help` only."""
    levels = click.Choice(["debug", "info", "warning", "error"])
    settings: list[tuple[tuple[str, ...], str, dict[str, Any]]] = [
        (("--debug",), "debug", {"is_flag": True, "help": "Show tracebacks."}),
        (("--log-level",), "log.level", {"type": levels, "help": "Overrides log.level."}),
        (
            ("--models",),
            "models",
            {"type": click.Path(path_type=Path, file_okay=False), "help": "Folder of the read models."},
        ),
        (
            ("-c", "--config"),
            "file",
            {
                "type": click.Path(path_type=Path, dir_okay=False),
                "help": "Configuration file.  [default: $SYNCER_CONFIG, else config/syncer.yaml]",
            },
        ),
    ]
    for names, target, attributes in settings:
        option = click.option(
            *names,
            f"_{target.replace('.', '_')}",
            hidden=hidden,
            expose_value=False,
            callback=_store(target),
            **attributes,
        )
        function = option(function)
    return function


def examples(text: str) -> str:
    """An epilog that click does not re-wrap. text: one example a line."""
    lines = "\n".join(f"  {line.strip()}" for line in text.strip().splitlines())
    return f"\b\nExamples:\n{lines}\n\n\b\nOptions of all commands: syncer --help"


def command(name: str, example: str, group: click.Group | None = None) -> Callable[[F], click.Command]:
    """Declares a command with the common options and its examples. It is called with a `Context` first."""

    def decorate(function: F) -> click.Command:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            return function(click.get_current_context().ensure_object(Context), *arguments, **options)

        wrapped = common(wrapped, hidden=True)
        made: click.Command = click.command(name, epilog=examples(example))(wrapped)
        if group:
            group.add_command(made)
        return made

    return decorate


def group(name: str, example: str) -> Callable[[Callable[[], None]], click.Group]:
    """Declares a command that has commands."""
    return click.group(name, epilog=examples(example))


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
models_argument = click.argument("models", nargs=-1, metavar="[MODEL]...")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; anywhere else `--yes` has to be given. Ends the command when refused."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to answer on: give --yes.")
    click.confirm(question, abort=True, err=True)
