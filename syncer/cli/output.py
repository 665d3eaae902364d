"""Prints text, tables, errors and JSON: with colours on a terminal, as plain aligned text into a pipe."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.measure import Measurement
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from syncer.cli.context import Context
from syncer.errors import Retry, SyncerError, Unknown

FINDING, USAGE, OPERATOR, UNAVAILABLE = 1, 2, 3, 4
PIPE = 128 + signal.SIGPIPE
"""Exit code of a program that does not catch SIGPIPE: the reader of its output closed the pipe."""
_NAMES = "check|explain|preview|connectors|backfill|run|status|top|wait|refresh|verify|trace|dlq|resync|config"
_COMMAND = re.compile(rf"(?<![\w/.-])syncer(?= (?:{_NAMES})\b)")
_KINDS = ((Retry, UNAVAILABLE), (Unknown, USAGE))


def exit_code(error: SyncerError) -> int:
    """Returns the exit code of a command that ends with this error."""
    return next((code for kind, code in _KINDS if isinstance(error, kind)), OPERATOR)


def duration(seconds: float) -> str:
    """Returns a duration with its two largest units: `9 s`, `1 min 30 s`, `2 h 5 min`, `3 d 4 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError. rich would end the process with exit code 1, which means that a problem was found."""
        raise BrokenPipeError(errno.EPIPE, "the output was closed")


def discard_stdout() -> None:
    """Redirects standard output to the null device, so that flushing its buffer at exit raises no error."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: standard output is not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(*, err: bool = False) -> Console:
    """Returns a console for the current standard output, or standard error.

    Texts are printed unchanged: rich interprets no markup and no emoji codes. Styles are set with `Text` and arguments.
    """
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else 10_000
    return _Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def echo(text: str = "", *, style: str = "", err: bool = False) -> None:
    """Prints text unchanged, except that commands of the syncer in it are completed (see `runnable`).

    style: applies on a terminal only.
    """
    out, text = console(err=err), runnable(text)
    if out.is_terminal:
        out.print(Text(text), style=style or None)
    else:
        click.echo(text, err=err)


def echo_error(error: SyncerError) -> None:
    """Prints an error to standard error: what failed, where, why, and the command to run next."""
    what, where, why, hint = error.what, error.where, error.why, error.hint
    label = "temporary error" if isinstance(error, Retry) else "error"
    parts: list[str | tuple[str, str]] = [(f"{label}:", "bold red"), f" {what}"]
    if where:
        parts += [("\n  where:", "dim"), f" {where}"]
    if why:
        parts += [("\n  why:", "dim"), f"   {why}".replace("\n", "\n" + 9 * " ")]
    if hint:
        parts.append((f"\n  → {runnable(hint)}", "green"))
    console(err=True).print(Text.assemble(*parts))


def runnable(text: str) -> str:
    """Returns the text with every command of the syncer completed, so that it can be pasted into this shell.

    The path of the program and the configuration options are those of this invocation.
    """
    context = click.get_current_context(silent=True)
    shared = context.find_object(Context) if context else None
    prefix = shared.invocation if shared else "syncer"
    return text if prefix == "syncer" else _COMMAND.sub(lambda _: prefix, text)


def echo_json(value: Any) -> None:
    """Prints a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[int] = (),
    whole: bool = False,
) -> None:
    """Prints a table.

    right: columns (counted from 0) to align right, for numbers.
    whole: never wrap a cell, even if the terminal is narrow.
    """
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    out = console()
    if out.is_terminal:
        drawn = Table(box=None, header_style="bold", pad_edge=False)
        for at, header in enumerate(headers):
            drawn.add_column(header, justify="right" if at in right else "left", overflow="fold")
        for row in texts:
            drawn.add_row(*map(Text, row))
        if whole:
            natural = Measurement.get(out, out.options.update(max_width=10_000), drawn).maximum
            out.width = max(out.width, natural)
        out.print(drawn, soft_wrap=False)
        return
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    for row in [list(headers), *texts]:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def code(text: str, language: str) -> None:
    """Prints code: highlighted on a terminal, unchanged into a pipe."""
    out = console()
    if out.is_terminal:
        out.print(Syntax(text, language, background_color="default", word_wrap=True), soft_wrap=False)
    else:
        click.echo(text)


def draw(tree: Tree) -> None:
    """Prints a tree. The lines between its nodes are plain characters, so they are printed into a pipe, too."""
    console().print(tree, soft_wrap=False)


def pretty(text: bytes | str, *, canonical: bool = False) -> str:
    """Returns JSON text with indentation. Numbers keep their original text, so no digit is lost.

    canonical: whether equal values get equal texts. Keys are sorted, and 1.00 is written as 1.
    """
    if canonical:
        value = json.loads(text, parse_float=_canonical, object_pairs_hook=lambda pairs: dict(sorted(pairs)))
    else:
        value = json.loads(text, parse_float=_Number, parse_int=_Number)
    return _indent(value, "")


def _canonical(number: str) -> _Number:
    return _Number(f"{Decimal(number).normalize():f}")


class _Number(str):
    """Holds the original text of a number."""

    __slots__ = ()


def _indent(value: Any, margin: str) -> str:
    inner = margin + "  "
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict) and value:
        members = (f"{inner}{json.dumps(k, ensure_ascii=False)}: {_indent(v, inner)}" for k, v in value.items())
        return "{\n" + ",\n".join(members) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"{inner}{_indent(item, inner)}" for item in value) + f"\n{margin}]"
    return json.dumps(value, ensure_ascii=False)
