"""How the demo shows what it does: steps, the commands that it runs, JSON. Texts are printed as they are."""

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
"""The folder of the virtual environment's programs, `syncer` among them."""


class Failed(Exception):
    """A step did not do what it should; the message says which."""


def step(number: int, title: str, text: str) -> None:
    """The heading of a step."""
    output.echo()
    _print((f"{number}  {title}", "bold cyan"), ("  " + text, "dim"))


def command(text: str) -> None:
    """A command as a user would type it; what follows is what it prints."""
    _print(("$ ", "green"), (text, "bold"))


def note(text: str) -> None:
    """A line of the demo's own, between the commands."""
    output.echo(f"  {text}")


def syncer(*arguments: str, expect: Collection[int] = (0,)) -> None:
    """Run a command as a user would type it; its output goes to the terminal."""
    command(f"syncer {shlex.join(arguments)}")
    done = subprocess.run([PROGRAMS / "syncer", *arguments], check=False)
    if done.returncode not in expect:
        raise Failed(f"syncer {arguments[0]} ended with exit status {done.returncode}.")


def show(value: Any) -> None:
    """A value as JSON."""
    output.code(json_text(value), "json")


def json_text(value: Any, indent: int = 0, width: int = 100) -> str:
    """JSON in which whatever fits on a line is on one."""
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
