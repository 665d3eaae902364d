"""`syncer check`: what has to be done before the read models can be right."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click

from syncer.checks import Finding
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.cli.survey import Survey, survey

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@command(
    "check",
    """
    syncer check
    syncer check orders
    syncer check --read-only            without the index that Elasticsearch is asked to make for a moment
    syncer check --sql > todo.sql       to read, and then: psql -v ON_ERROR_STOP=1 -f todo.sql
    syncer check --json | jq '.findings[] | select(.severity == "error")'
    """,
)
@models_argument
@click.option("--sql", "only_sql", is_flag=True, help="Print only the SQL to run, for errors and warnings.")
@click.option("--read-only", is_flag=True, help="Create no index in Elasticsearch, not even for a moment.")
@as_json
@click.pass_context
def check(
    ctx: click.Context,
    context: Context,
    models: Sequence[str],
    only_sql: bool,
    read_only: bool,
    as_json: bool,
) -> None:
    """Compare configuration, read models and connector with the database and the servers; say what to run.

    Nothing is changed. To learn whether Elasticsearch takes a mapping, check creates a hidden index
    syncer-check-… and deletes it at once. Errors would make documents wrong or stop the application; warnings
    make it slow or fragile. Exit code 1 if there are errors.
    """
    with _ended_by_signals():
        found = survey(context.config, models, read_only=read_only)
    if as_json:
        findings = [asdict(f) | {"about": title} for title, group in found.findings.items() for f in group]
        output.echo_json({"findings": findings} | {f"{s}s": len(found.all(s)) for s in STYLES})
    elif only_sql:
        for line in script(found):
            click.echo(line)
    else:
        echo_findings(found)
        counts = [output.counted(len(found.all(s)), s) for s in STYLES]
        output.echo(", ".join(counts), style="bold")
    if found.all("error"):
        ctx.exit(output.FINDING)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that nothing of it stays on a server."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def echo_findings(found: Survey) -> None:
    """Group by group, the worst first; a group without findings is worth a word, too."""
    order = list(STYLES)
    for title, group in found.findings.items():
        output.echo(title if group else f"{title}: ok", style="bold")
        for finding in sorted(group, key=lambda f: order.index(f.severity)):
            echo_finding(finding)
        if group:
            output.echo()


def echo_finding(finding: Finding) -> None:
    output.echo(f"  {finding.severity}: {finding.where}: {finding.what}", style=STYLES[finding.severity])
    if finding.why:
        output.echo("\n".join(f"    {line}" for line in finding.why.splitlines()))
    for line in finding.fix.splitlines():
        output.echo(f"    → {line}", style="green")


def script(found: Survey) -> list[str]:
    """The SQL among what errors and warnings say to run, each statement once; comments name what belongs to
    it and cannot be run, and what is left out."""
    lines = [_comment(f"left out: {what}") for what in found.left_out()]
    for finding in found.all("error") + found.all("warning"):
        fixes = finding.fix.splitlines()
        if any(line.endswith(";") for line in fixes):
            lines += [_runnable(finding, line) for line in fixes]
    return list(dict.fromkeys(lines))


def _runnable(finding: Finding, line: str) -> str:
    """A line without a semicolon, or with something to be filled in, is for a person."""
    return line if line.endswith(";") and "…" not in line else _comment(f"{finding.where}: {line}")


def _comment(text: str) -> str:
    return "-- " + " ".join(text.split())
