"""Prints the steps of the demo, its commands and JSON. Texts are printed unchanged."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson
from rich.text import Text

from syncer.cli import output

PROGRAMS = Path(sys.executable).parent
"""Folder of the programs of the virtual environment, among them `syncer`."""


class Failed(Exception):
    """Ends the demo, because a step failed. The message names the step."""


def step(number: int, title: str, text: str) -> None:
    """Prints the heading of a step."""
    output.echo()
    _print((f"{number}  {title}", "bold cyan"), ("  " + text, "dim"))


def command(text: str) -> None:
    """Prints a command as a user types it. Its output follows."""
    _print(("$ ", "green"), (text, "bold"))


def note(text: str) -> None:
    """Prints a remark between the commands."""
    output.echo(f"  {text}")


def syncer(*arguments: str, expect: Collection[int] = (0,)) -> None:
    """Prints and runs a command of the syncer. Its output goes to the terminal.

    Raises Failed if the exit status is none of `expect`.
    """
    command(f"syncer {shlex.join(arguments)}")
    done = subprocess.run([PROGRAMS / "syncer", *arguments], check=False)
    if done.returncode not in expect:
        raise Failed(f"syncer {arguments[0]} ended with exit status {done.returncode}.")


def show(value: Any) -> None:
    """Prints a value as JSON."""
    output.code(json_text(value), "json")


def json_text(value: Any, indent: int = 0, width: int = 100) -> str:
    """Returns JSON in which every value that fits on a line is on one line."""
    short = orjson.dumps(value).decode()
    if len(short) + indent <= width or not isinstance(value, dict | list):
        return short
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f'"{name}": {json_text(item, indent + 2, width - len(name) - 4)}' for name, item in value.items()]
    else:
        parts = [json_text(item, indent + 2, width) for item in value]
    left, right = "{}" if isinstance(value, dict) else "[]"
    return f"{left}\n{inner}" + f",\n{inner}".join(parts) + f"\n{' ' * indent}{right}"


def _print(*parts: tuple[str, str]) -> None:
    output.console().print(Text.assemble(*parts))
