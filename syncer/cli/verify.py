"""`syncer verify`: compares the sinks with PostgreSQL, document by document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from syncer import load
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.cli.progress import Progress
from syncer.config import Config
from syncer.errors import Fatal
from syncer.registry import Registry
from syncer.rows.postgres import Postgres
from syncer.verify import Report, Verify


@command(
    "verify",
    """
    syncer verify
    syncer verify orders --patience 5
    syncer verify --json | jq -r '.[].differing[]'
    """,
)
@models_argument
@click.option(
    "--patience", type=click.FloatRange(0), default=30, show_default=True,
    help="Look again for so many seconds before a difference counts.",
)  # fmt: skip
@click.option(
    "--keys", "shown", type=click.IntRange(0), default=10, show_default=True, help="Show so many keys."
)
@as_json
@click.pass_context
def verify(
    ctx: click.Context, context: Context, models: Sequence[str], patience: float, shown: int, as_json: bool
) -> None:
    """Compare every document of every sink with what PostgreSQL says now.

    The read models may be in use meanwhile: what differs is looked at again until it is the same or patience
    is over. Exit code 1 if anything differs. `syncer backfill MODEL` mends what is missing or differs (with
    --sweep ghosts, too), if `syncer run` has no reason to tell why it does.
    """
    config = context.config
    registered = Registry(config).state.load()
    reports: list[Report] = []
    with Progress("documents") as progress:
        for loaded in load.models(config, models):
            known = registered.get(loaded.name)
            if known is None:
                raise Fatal("nothing to verify: it has never run", where=loaded.name, hint="syncer backfill")
            reports += _verify(config, loaded, known["epoch"], known["generation"], patience, progress)
    if as_json:
        output.say_json([asdict(report) | {"equal": report.equal} for report in reports])
    else:
        rows = [
            (r.sink, f"{r.documents:,}", len(r.missing), len(r.differing), len(r.ghosts), _verdict(r))
            for r in reports
        ]
        headers = ["sink", "documents", "missing", "differing", "ghosts", ""]
        output.table(headers, rows, right=(1, 2, 3, 4))
        for report in reports:
            for what in ("missing", "differing", "ghosts"):
                if ids := getattr(report, what):
                    more = f" and {len(ids) - shown:,} more" if len(ids) > shown else ""
                    output.say(f"{report.sink}: {what}: {', '.join(ids[:shown])}{more}")
        if any(report.ghosts for report in reports):
            output.say("→ syncer backfill --sweep")
        elif any(report.missing or report.differing for report in reports):
            output.say("→ syncer status tells whether something waits or was dead-lettered; syncer backfill")
    if not all(report.equal for report in reports):
        ctx.exit(output.FINDING)


def _verify(
    config: Config, loaded: load.Loaded, epoch: int, generation: int, patience: float, progress: Progress
) -> Iterator[Report]:
    rows = Postgres(
        config.postgres.arguments(), loaded.compiled, statement_timeout=config.postgres.statement_timeout
    )
    total = loaded.catalog.tables[loaded.compiled.root].rows_estimate
    try:
        for sink in load.build_sinks(config, loaded, epoch=epoch, generation=generation):

            def compared(done: int, name: str = sink.name) -> None:
                progress.update(name, done, max(total, done))

            try:
                report = Verify(loaded.compiled, rows, patience=patience, progress=compared)(sink)
                progress.update(sink.name, report.documents, report.documents)
                yield report
            finally:
                sink.close()
    finally:
        rows.close()


def _verdict(report: Report) -> str:
    return "equal" if report.equal else "DIFFERENT"
