"""Adds the tables of an example to the shop's database for a step, with read models over them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.arena import ROOT, Arena, Failed
from demo.examples.__main__ import define_connector

Fill = Callable[[psycopg.Connection[Any]], object]


@contextmanager
def added(
    arena: Arena,
    schema: Path | str,
    fill: Fill,
    models: Path | Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Creates tables, and removes them at the end. The syncer uses only these read models meanwhile.

    The tables are filled before the connector has them, so Kafka has no events of these rows.

    schema: the statements that create the tables, or their file.
    models: the folder of the read models, or their YAML by name.
    settings: further settings of the syncer, as variables.
    """
    before = set(_tables(arena))
    with psycopg.connect(arena.dsn, autocommit=True) as connection:
        connection.execute(schema.encode() if isinstance(schema, str) else schema.read_bytes())
        fill(connection)
        connection.execute("VACUUM ANALYZE")
    new = [name for name in _tables(arena) if name not in before]
    definition = define_connector(arena.stack, arena.dsn)
    arena.settings = {
        "SYNCER_MODELS": str(models if isinstance(models, Path) else _folder(arena, models)),
        "SYNCER_CONNECT__DEFINITIONS": str(definition),
        **(settings or {}),
    }
    try:
        for statement in _missing(arena):
            arena.sql(statement)
        arena.syncer("connectors", "apply", "--yes")
        yield
    finally:
        arena.settings = {}
        arena.sql(f"DROP TABLE {', '.join(f'public.{name}' for name in new)} CASCADE")
    arena.syncer("connectors", "apply", "--yes")


def run_script(file: Path, **values: object) -> Fill:
    """Returns a function that runs the statements of a file, with these values in the place of `{name}`."""

    def fill(connection: psycopg.Connection[Any]) -> None:
        for statement in file.read_text("utf-8").format(**values).split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())

    return fill


def _tables(arena: Arena) -> list[str]:
    return [name for (name,) in arena.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]


def _folder(arena: Arena, models: Mapping[str, str]) -> Path:
    folder = arena.stack.home / "-".join(models)
    folder.mkdir()
    for name, text in models.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def _missing(arena: Arena) -> list[str]:
    """Returns the statements that `syncer check` asks for."""
    command = [sys.executable, "-m", "syncer", "check", "--sql"]
    done = subprocess.run(command, cwd=ROOT, env=arena.environ, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        raise Failed(f"syncer check failed. Its output:\n{done.stderr}")
    return [statement for statement in done.stdout.split(";\n") if statement.strip()]
