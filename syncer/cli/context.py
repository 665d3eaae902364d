"""Declares what all commands share: the common options, the configuration that results from them, and help texts."""

from __future__ import annotations

import functools
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click

from syncer.config import schema
from syncer.telemetry import logs

F = TypeVar("F", bound=Callable[..., Any])


class Context:
    """Holds the common options of one invocation. The configuration is read on first use."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.options: dict[str, Any] = {}
        self.debug = False

    @property
    def invocation(self) -> str:
        """Returns the start of a command line with the same program and configuration as this one.

        Examples: `syncer`, or `.venv/bin/syncer -c prod.yaml`.
        """
        parts = [_program()]
        if self.file:
            parts += ["-c", str(self.file)]
        if "models" in self.options:
            parts += ["--models", str(self.options["models"])]
        return shlex.join(parts)

    @cached_property
    def config(self) -> schema.Config:
        """Loads the configuration and sets up logging, by default for warnings and errors only.

        Raises Fatal if the configuration is not valid.
        """
        loaded = schema.load(self.file, options=self.options)
        logs.configure(self.options.get("log.level", "warning"), loaded.log.format)
        return loaded


def _program() -> str:
    """Returns `syncer` if the shell finds this program on the PATH, otherwise the path that the user typed."""
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
    """Adds the options of all commands. Only `syncer --help` lists them."""
    levels = click.Choice(["debug", "info", "warning", "error"])
    settings: list[tuple[tuple[str, ...], str, dict[str, Any]]] = [
        (("--debug",), "debug", {"is_flag": True, "help": "Show a traceback for every error."}),
        (
            ("--log-level",),
            "log.level",
            {
                "type": levels,
                "help": "Log level.",
                "show_default": "setting log.level for run and serve, warning for other commands",
            },
        ),
        (
            ("--models",),
            "models",
            {
                "type": click.Path(path_type=Path, file_okay=False),
                "help": "Folder of the read models.",
                "show_default": "setting models",
            },
        ),
        (
            ("-c", "--config"),
            "file",
            {
                "type": click.Path(path_type=Path, dir_okay=False),
                "help": "Configuration file.",
                "show_default": "$SYNCER_CONFIG, else config/syncer.yaml",
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


def _epilog(examples: str, exits: Mapping[int, str] | None = None) -> str:
    """Returns examples and exit codes as text that click does not re-wrap. examples: one per line."""
    lines = ["\b", "Examples:", *(f"  {line.strip()}" for line in examples.strip().splitlines())]
    if exits:
        lines += ["", "\b", "Exit codes:", *(f"  {code}  {meaning}" for code, meaning in sorted(exits.items()))]
    return "\n".join([*lines, "", "\b", "Options of all commands, and exit codes 2 to 4: syncer --help"])


def command(
    name: str, example: str, group: click.Group | None = None, *, exits: Mapping[int, str] | None = None
) -> Callable[[F], click.Command]:
    """Declares a command with the common options, its examples and its exit codes.

    The first argument of the decorated function is the `Context`.
    exits: meaning of exit codes 0 and 1, and others that only this command has.
    """

    def decorate(function: F) -> click.Command:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            return function(click.get_current_context().ensure_object(Context), *arguments, **options)

        wrapped = common(wrapped, hidden=True)
        made: click.Command = click.command(name, epilog=_epilog(example, exits or {0: "success"}))(wrapped)
        if group:
            group.add_command(made)
        return made

    return decorate


def group(name: str, example: str) -> Callable[[Callable[[], None]], click.Group]:
    """Declares a command that has subcommands."""
    return click.group(name, epilog=_epilog(example))


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for use in programs.")
models_argument = click.argument("models", nargs=-1, metavar="[MODEL]...")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")


def confirm(question: str, yes: bool) -> None:
    """Asks the user on a terminal and aborts the command if the answer is no. Without a terminal, `--yes` is required.

    Raises UsageError if there is no terminal and no `--yes`.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to answer on. To confirm, add --yes.")
    click.confirm(question, abort=True, err=True)
