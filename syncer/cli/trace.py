"""Implements `syncer trace`: prints the timeline of one document, and compares it with PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import click

from syncer.cli import output, trace_output
from syncer.cli.backfill import interruptible
from syncer.cli.context import Context, as_json, command
from syncer.cli.preview import key_of
from syncer.cli.progress import Progress
from syncer.config.schema import Config
from syncer.errors import Reject, Retry
from syncer.monitors.delivery import ANSWER_TIMEOUT, answer
from syncer.operations.trace.look import Trace
from syncer.operations.trace.report import Report, news, relation
from syncer.operations.trace.root import TracedRoot
from syncer.pacing import SystemTime, poll_until
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.quantities import counted, parse_duration
from syncer.registry import loader
from syncer.registry.backends import open_registry

_POLL = 0.25
"""Seconds between two looks."""
_SLOW = 20_000
"""Records from which on the progress of reading them is shown."""


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        return float(parse_duration(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@command(
    "trace",
    r"""
    syncer trace orders 4711
    syncer trace orders 4711 --since 1d
    syncer trace stock 'berlin|sku-7' --follow    a key with two columns
    syncer trace orders 4711 --json | jq '.changes[] | {committed, table, key, state}'
    """,
    exits={
        0: "every sink has the document that PostgreSQL renders, or a change is under way",
        1: "a sink differs and no change is under way, or nothing is known about the key",
        4: "a server is unreachable, so a part of the report is missing",
        130: "--follow was stopped with Ctrl-C",
    },
)
@click.argument("model")
@click.argument("key")
@click.option("--follow", is_flag=True, help="Continue with new changes until Ctrl-C.")
@click.option(
    "--since",
    metavar="DURATION",
    default="1h",
    show_default=True,
    callback=_seconds,
    help="Read the changes that arrived in Kafka within this time before now.",
)
@click.option(
    "--max-records",
    type=click.IntRange(1),
    metavar="NUMBER",
    default=1_000_000,
    show_default=True,
    help="Read at most this number of change records. If there are more, --since is halved until they fit.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=5,
    show_default=True,
    help="Time in which a difference may disappear before it is reported.",
)
@as_json
@click.pass_context
def trace(
    ctx: click.Context,
    context: Context,
    model: str,
    key: str,
    follow: bool,
    since: float,
    max_records: int,
    patience: float,
    as_json: bool,
) -> None:
    """Show why a document looks as it does.

    The command prints the changes in Kafka that affected the document. For each change, it prints the tables between
    the changed row and the document, and whether the sinks have acknowledged the change. Then it prints the version in
    each sink, and a diff from the stored document to the document that PostgreSQL renders now. It changes nothing.

    The output contains data of the rows, also of the rows that no longer belong to the document.

    KEY is the id of the document, as in `syncer preview`.

    A change is acknowledged when its documents are in every sink or have a dead letter. If a change
    affects many documents, or the read model has min_interval, the change is acknowledged earlier. Its documents may
    then still wait in work items. Times are those of the commits, in UTC.

    \b
    left           the row belonged to the document before the change, and not after it
    joined         the row belongs to the document since the change
    earlier link   an earlier link connected the row with the document; this link no longer exists;
                   the change may have been committed before or after the link was removed
    not used       the change affects no column that the document uses

    With --follow, the command then prints new changes, the acknowledgements, and each new version of the document. With
    --follow --json, it prints one JSON object per line; the first one is the report.
    """
    config = context.config
    loader.load_declared(config, [model])
    with ExitStack() as closing:
        root = _open_root(config, model, key)
        if isinstance(root, TracedRoot):
            closing.callback(root.close)
        progress = closing.enter_context(Progress("record"))

        def show(done: int, total: int) -> None:
            if total >= _SLOW:
                progress.update(model, done, total)

        id = root.id if isinstance(root, TracedRoot) else key
        looking = Trace(open_registry(config), model, root, id, since=since, most=max_records, progress=show)
        closing.callback(looking.close)
        report = _look(looking, patience)
        if as_json:
            _echo_json(trace_output.as_dict(report), one_line=follow)
        else:
            _echo_report(report)
        if follow:
            with interruptible("trace changes nothing"):
                _follow(looking, report, as_json=as_json)
    if report.missing:
        ctx.exit(max(map(output.exit_code, report.missing.values())))
    if report.differs or not report.known:
        ctx.exit(output.FINDING)


def _open_root(config: Config, model: str, text: str) -> TracedRoot | Retry:
    """Returns the root with this key, or the error if PostgreSQL does not answer.

    Raises UsageError if the text is no key of the read model.
    """
    try:
        ping = SystemTime().run_in_background("postgres", lambda: loader.ping(config))
        answer(ping, time.monotonic() + ANSWER_TIMEOUT, "PostgreSQL", "postgres.dsn")
        [loaded] = loader.load_models(config, [model])
    except Retry as error:
        return error
    arguments, timeout = config.postgres.arguments(), config.postgres.statement_timeout
    rows = SnapshotReader(arguments, loaded.compiled, statement_timeout=timeout)
    try:
        return TracedRoot(loaded, rows, key_of(text, loaded.compiled))
    except Reject as error:
        rows.close()
        raise click.UsageError(f"{text!r}: {error.why or error.what}") from error
    except Retry as error:
        rows.close()
        return error


def _look(looking: Trace, patience: float) -> Report:
    """Returns the report. Looks again while a sink differs, because a commit may not have reached Kafka yet."""
    reports: list[Report] = []

    def conclusive() -> bool:
        reports[:] = [looking.look()]
        return bool(reports[0].missing) or not reports[0].differs

    poll_until(conclusive, timeout=patience, interval=_POLL)
    return reports[0]


def _follow(looking: Trace, report: Report, *, as_json: bool) -> None:
    """Prints what is new, until the process is interrupted."""
    while True:
        time.sleep(_POLL)
        now, now_ms = looking.look(), SystemTime().now_ms()
        for one in news(report, now):
            if as_json:
                _echo_json(trace_output.news_dict(one, now), one_line=True)
            else:
                for line in trace_output.news_text(one, now, now_ms):
                    output.echo(line)
        report = now


def _echo_json(value: dict[str, object], *, one_line: bool) -> None:
    if one_line:
        click.echo(json.dumps({"type": "report", **value}, ensure_ascii=False))
    else:
        output.echo_json(value)


def _echo_report(report: Report) -> None:
    output.echo(f"{report.model} {report.id or '(empty)'}: {_verdict(report)}", style="bold")
    for line in trace_output.head(report):
        output.echo(line)
    output.echo()
    if rows := trace_output.timeline(report):
        output.table(trace_output.TIMELINE, rows, right=(3,))
    for line in _about_changes(report):
        output.echo(line)
    if report.stores:
        output.echo()
        rows = [
            (one.sink, one.state, trace_output.version(one, report), relation(one, report)) for one in report.stores
        ]
        output.table(("sink", "document", "version", ""), rows)
    for store in report.stores:
        if text := trace_output.difference(store):
            output.echo()
            output.code(text, "diff")
    output.echo()
    for line in report.under_way:
        output.echo(f"under way: {line}")
    for letter in report.letters:
        output.echo(f"→ syncer dlq show {report.model} {letter.subject.handle}")
    for part, error in report.missing.items():
        output.echo(f"missing: {part}: {' '.join(str(error).split())}", style="red")
    if report.differs and not report.letters:
        output.echo(f"→ to repair all documents that differ from PostgreSQL: syncer verify {report.model} --repair")
    for line in trace_output.NOT_RECORDED:
        output.echo(line, style="dim")


def _verdict(report: Report) -> str:
    if report.missing:
        return f"unknown, because {', '.join(report.missing)} could not be read"
    if not report.known:
        return "nothing is known about this key"
    if report.in_sync:
        return "in sync"
    return "DIFFERENT" if report.differs else "changes are under way"


def _about_changes(report: Report) -> Iterator[str]:
    """Yields lines about the stretch of the change topics that was read."""
    if not report.since_ms:
        return
    since = trace_output.utc(report.since_ms)
    if not report.changes:
        yield f"no change of this document arrived in Kafka since {since}"
    else:
        yield f"{counted(len(report.changes), 'change')} since {since}"
    if report.shortened:
        yield "more than --max-records arrived in the time of --since: a shorter time was read"
    if report.omitted:
        yield counted(
            report.omitted,
            "older change of this document is not shown",
            "older changes of this document are not shown",
        )
    if report.unreadable:
        yield f"{counted(report.unreadable, 'record')} could not be read → syncer dlq list {report.model}"
    if not report.known:
        sinks = ", ".join(store.sink for store in report.stores)
        yield f"searched: the root table, {sinks}, the change topics since {since}, dead letters and work items"
