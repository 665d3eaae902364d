"""Implements `syncer check`: reports everything that would make documents wrong, slow or fragile."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click

from syncer.checks import Finding
from syncer.cli import output
from syncer.cli.check_report import CheckReport
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.cli.run_checks import run_checks
from syncer.quantities import counted

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@command(
    "check",
    """
    syncer check
    syncer check orders
    syncer check --read-only            create no temporary index or table
    syncer check --sql > fix.sql        review it, then run: psql -v ON_ERROR_STOP=1 -f fix.sql
    syncer check --json | jq '.findings[] | select(.severity == "error")'
    """,
    exits={0: "no errors; there may be warnings", 1: "at least one error"},
)
@models_argument
@click.option("--sql", "only_sql", is_flag=True, help="Print only the SQL that fixes errors and warnings.")
@click.option("--read-only", is_flag=True, help="Create nothing on the servers, not even temporarily.")
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
    """Report problems in configuration, database and servers.

    The command checks the read models, the tables that they use, the connector definition and all servers. It prints
    how to fix each problem.

    Run it before the first start, and after each change of a read model, a table or the connector. It needs
    PostgreSQL. Any other server that is unreachable becomes a finding.

    An error means that documents can be wrong, or that statements of your application fail. A warning means that the
    syncer is slow or fragile. A note is for your information.

    The command leaves no changes behind. To test whether Elasticsearch accepts a mapping, it creates a hidden index
    named syncer-check-… and deletes it immediately. To test a sink in PostgreSQL, it creates a table in a transaction
    that it rolls back.
    """
    with _exit_on_sigterm():
        report = run_checks(context.config, models, read_only=read_only)
    if as_json:
        findings = [_as_dict(f) | {"about": title} for title, group in report.findings.items() for f in group]
        output.echo_json({"findings": findings} | {f"{s}s": len(report.all(s)) for s in STYLES})
    elif only_sql:
        for line in script(report):
            click.echo(line)
    else:
        echo_findings(report)
        counts = [counted(len(report.all(s)), s) for s in STYLES]
        output.echo(", ".join(counts), style="bold")
    if report.all("error"):
        ctx.exit(output.FINDING)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turns SIGTERM into SystemExit, so that temporary indices are deleted as after Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def echo_findings(report: CheckReport) -> None:
    """Prints findings by group, the most severe first. A group without findings gets the line `ok`."""
    order = list(STYLES)
    for title, group in report.findings.items():
        output.echo(title if group else f"{title}: ok", style="bold")
        for finding in sorted(group, key=lambda f: order.index(f.severity)):
            echo_finding(finding)
        if group:
            output.echo()


def echo_finding(finding: Finding) -> None:
    """Prints one finding: severity, place and problem, then the reason and the commands that fix it."""
    output.echo(f"  {finding.severity}: {finding.where}: {finding.what}", style=STYLES[finding.severity])
    if finding.why:
        output.echo("\n".join(f"    {line}" for line in finding.why.splitlines()))
    for line in finding.fix.splitlines():
        output.echo(f"    → {line}", style="green")


def _as_dict(finding: Finding) -> dict[str, object]:
    return {name: value for name, value in asdict(finding).items() if name != "index"}


def script(report: CheckReport) -> list[str]:
    """Returns the SQL statements that fix errors and warnings, each of them once.

    An index whose columns are the first ones of another printed index is not printed: the other one serves both.
    Comments hold the parts of a fix that are not SQL, and name the objects that the statements do not cover.
    """
    lines = [_comment(f"not covered: {what}") for what in report.not_covered()]
    findings = report.all("error") + report.all("warning")
    indexes = [finding.index for finding in findings if finding.index]
    for finding in findings:
        if finding.index and any(index.covers(finding.index) for index in indexes):
            continue
        fixes = finding.fix.splitlines()
        if any(line.endswith(";") for line in fixes):
            lines += [_statement_or_comment(finding, line) for line in fixes]
    return list(dict.fromkeys(lines))


def _statement_or_comment(finding: Finding, line: str) -> str:
    """Returns a line as SQL, or as a comment if it has no semicolon or a placeholder that the reader has to fill in."""
    return line if line.endswith(";") and "…" not in line else _comment(f"{finding.where}: {line}")


def _comment(text: str) -> str:
    return "-- " + " ".join(text.split())
