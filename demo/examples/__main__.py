"""Runs an example on real servers, from an empty machine to checked queries. `make example NAME=…` starts it.

    1 servers        PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis
    2 application    its database
    3 read model     prepared, backfilled, kept in sync by the daemon
    4 writes         the application runs
    5 queries        the application's own queries, compared with SQL
    6 verify         every document against PostgreSQL

The servers are stopped and deleted at the end. The exit status is 0 only if everything is correct.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import click
import psycopg

import devstack
from demo import examples, place
from demo.examples import Example, Servers
from demo.running import servers, start_daemon
from demo.screen import PROGRAMS, Failed, command, note, step, syncer
from syncer.cli import output

HOME = Path(os.environ.get("EXAMPLE_HOME") or place.ROOT / ".devstack-example").absolute()
ORDERS = int(os.environ.get("ORDERS") or "5000")
SECONDS = float(os.environ.get("LIVE_SECONDS") or "10")


def names() -> list[str]:
    """Returns the names of all examples."""
    return [found.name for found in pkgutil.iter_modules(examples.__path__) if found.name != "__main__"]


def load(name: str) -> Example:
    """Returns an example. Raises Failed if there is none of this name."""
    if name not in names():
        raise Failed(f"There is no example called {name or '(no name)'!r}. Run one of these:\n" + _commands())
    example = importlib.import_module(f"demo.examples.{name}").EXAMPLE
    assert isinstance(example, Example)
    return example


def run(example: Example) -> None:
    """Runs all steps of an example."""
    began = time.monotonic()
    step(1, "Servers", "PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis")
    with servers(HOME, hint="Another example is running. Wait until it ends.") as started:
        step(2, "The application", "an ordinary database, which knows nothing of the syncer")
        dsn = make_database(started, example)
        settings = example.stores(started) | {"SYNCER_MODELS": str(example.folder)}
        if example.fill is not None:
            settings["SYNCER_CONNECT__DEFINITIONS"] = str(define_connector(started, dsn))
        place.adopt(place.environment(started, dsn) | settings)
        step(3, "The read model", "prepared, backfilled, and kept in sync by the daemon")
        prepare(dsn)
        syncer("backfill")
        start_daemon(started, HOME)
        step(4, "Writes", "the application runs, and its last commit is awaited")
        example.use(dsn, SECONDS)
        for model in models(example):
            syncer("wait", model, "--searchable", "--timeout", "60")
        step(5, "Queries", example.title)
        example.show(Servers(started, dsn))
        step(6, "Verify", "every document against PostgreSQL")
        syncer("verify", "--patience", "60")
    output.echo()
    output.echo(f"All results are correct. The example took {time.monotonic() - began:.0f} s.", style="bold green")
    output.echo("The servers are stopped and their data is deleted.")


def make_database(started: devstack.Stack, example: Example) -> str:
    """Creates the database of the example's application. Returns its DSN."""
    if example.fill is None:
        dsn, counts = place.make_shop(started, ORDERS)
        note(", ".join(f"{count:,} {table}" for table, count in counts.items()))
        return dsn
    dsn = urlunsplit(urlsplit(started.postgres)._replace(path="/application"))
    with psycopg.connect(started.postgres, autocommit=True) as admin:
        admin.execute("CREATE DATABASE application")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute((example.folder / "schema.sql").read_bytes())
        example.fill(connection)
    note(f"the tables of {(example.folder / 'schema.sql').relative_to(place.ROOT)}")
    return dsn


def define_connector(started: devstack.Stack, dsn: str) -> Path:
    """Writes the connector of the shop with the tables of this database. Returns its folder."""
    definition = json.loads((place.ROOT / "connectors" / "shop.json").read_text())
    with psycopg.connect(dsn) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
    definition["config"]["table.include.list"] = ",".join(f"public.{name}" for (name,) in tables)
    folder = started.home / "connectors"
    folder.mkdir(exist_ok=True)  # an earlier example may have left it
    (folder / "shop.json").write_text(json.dumps(definition, indent=2))
    return folder


def prepare(dsn: str) -> None:
    """Runs the statements of `syncer check --sql`, and creates the connector."""
    command('syncer check --sql | psql "$SYNCER_POSTGRES__DSN"')
    printed = subprocess.run([PROGRAMS / "syncer", "check", "--sql"], capture_output=True, text=True, check=False)
    if printed.returncode > 1:
        raise Failed(f"syncer check ended with exit status {printed.returncode}.\n{printed.stderr}")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in printed.stdout.split(";\n"):  # one by one: some cannot run in a transaction
            if statement.strip():
                connection.execute(statement.encode())
    syncer("connectors", "apply", "--yes")


def models(example: Example) -> list[str]:
    """Returns the names of the example's read models. A file is named after its read model."""
    return sorted(file.stem for file in example.folder.glob("*.yaml"))


def _commands() -> str:
    return "\n".join(f"  make example NAME={name}" for name in names())


@click.command()
@click.argument("name", default="")
def main(name: str) -> None:
    """Run an example and delete its servers."""
    try:
        run(load(name))
    except (Failed, devstack.DevstackError) as error:
        output.echo()
        output.echo("The example failed.", style="bold red")
        output.echo(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        output.echo("\nInterrupted. The servers are stopped and their data is deleted.")
        sys.exit(130)


if __name__ == "__main__":
    main()
