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
        output.say_json({"findings": findings} | {f"{s}s": len(found.all(s)) for s in STYLES})
    elif only_sql:
        for statement in statements(found.all("error") + found.all("warning")):
            click.echo(statement)
    else:
        say_findings(found)
        counts = [output.counted(len(found.all(s)), s) for s in STYLES]
        output.say(", ".join(counts), style="bold")
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


def say_findings(found: Survey) -> None:
    """Group by group, the worst first; a group without findings is worth a word, too."""
    order = list(STYLES)
    for title, group in found.findings.items():
        output.say(title if group else f"{title}: ok", style="bold")
        for finding in sorted(group, key=lambda f: order.index(f.severity)):
            say_finding(finding)
        if group:
            output.say()


def say_finding(finding: Finding) -> None:
    output.say(f"  {finding.severity}: {finding.where}: {finding.what}", style=STYLES[finding.severity])
    if finding.why:
        output.say("\n".join(f"    {line}" for line in finding.why.splitlines()))
    for line in finding.fix.splitlines():
        output.say(f"    → {line}", style="green")


def statements(findings: Sequence[Finding]) -> list[str]:
    """The SQL among what findings say to run, each statement once."""
    lines = [line for finding in findings for line in finding.fix.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.endswith(";")))
