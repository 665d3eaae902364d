"""Implements `syncer status`: prints state and lag of each read model, and all known problems.

The command queries all servers concurrently. A server that does not answer within two seconds is reported as a problem.
So the command answers soon even if several servers are broken.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import click

from syncer.checks import Finding, Slot
from syncer.cli import check_servers, output
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.config.schema import Config
from syncer.declaration import model
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry, SyncerError, with_hint
from syncer.monitors.delivery import ANSWER_TIMEOUT, Delivery, answer, check_delivery
from syncer.monitors.model_progress import Verified
from syncer.operations.model_status import ModelStatus
from syncer.operations.status import status as read_status
from syncer.pacing import SystemTime
from syncer.ports import PublishedWatermark
from syncer.quantities import counted
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.state import StateSnapshot

T = TypeVar("T")
HEADERS = ["model", "state", "stale", "lag", "records", "work", "dead letters", "backfill (UTC)"]
_KAFKA_TIMEOUT = 3.0  # seconds


@command(
    "status",
    """
    syncer status
    syncer status orders
    syncer status --json | jq '.models[] | select(.lag_seconds > 60)'
    """,
    exits={
        0: "every read model runs, was backfilled and has no dead letters, and no problem is known",
        1: "at least one of these is not true",
        4: "Kafka is unreachable",
    },
)
@models_argument
@as_json
@click.pass_context
def status(ctx: click.Context, context: Context, models: Sequence[str], as_json: bool) -> None:
    """Show state, lag and problems of each read model.

    The output has the next command to run for each problem.

    The status comes from Kafka, Kafka Connect, PostgreSQL and the sinks. The command does not contact a daemon, so it
    also works while no daemon runs. It changes nothing.

    \b
    state          new (never run), starting, running, waiting (continues by itself once the
                   problem is fixed), stopped (no daemon runs it), failed
    stale          how old a document can be, by the clock of this host: the time since the newest
                   snapshot of PostgreSQL that every sink shows (the watermark); a dash if
                   it is unknown
    lag            age of the oldest change that some sink does not show yet; it includes fan-outs,
                   and changes that the connector does not deliver; a question mark if it is
                   unknown, a dash for a new or stopped read model
    records        change records in Kafka that are not in every sink
    work           work items that are due: backfill ranges, large fan-outs, sweeps
    dead letters   documents and records that were rejected
    backfill       end of the last backfill, its progress, "unfinished" or "never"

    The command finds these problems: servers that do not answer, daemons that failed or were killed, a connector or
    slot that does not deliver changes, and readers that use an index which is no longer updated.
    """
    config = context.config
    declared = loader.load_declared(config, models)
    checks = _ServerChecks(config, declared)
    registry = open_registry(config)
    statuses: list[ModelStatus] = []
    kafka: Retry | None = None
    try:
        registry.backend.ping(_KAFKA_TIMEOUT)
        readers, watermarks = checks.readers_and_watermarks(registry.state.load())
        checks.collect()
        tables = {one.name: model.tables(one) for one in declared}
        statuses = read_status(registry, tables, source=checks.reason, readers=readers, watermarks=watermarks)
    except Retry as error:
        kafka = error
        checks.collect()
    notes = {one.model: list(_notes(one)) for one in statuses}
    if as_json:
        output.echo_json(
            {
                "models": [
                    with_hint(asdict(one)) | {"healthy": one.healthy, "notes": notes[one.model]} for one in statuses
                ],
                "source": checks.source(),
                "problems": checks.problems + ([str(kafka)] if kafka else []),
            }
        )
    else:
        if statuses:
            output.table(HEADERS, map(_row, statuses), right=(2, 3, 4, 5, 6), whole=True)
        for one in statuses:
            for line in (*_reasons(one, checks.reason), *notes[one.model]):
                output.echo(line)
        for line in (*checks.lines, *checks.problems):
            output.echo(line)
    if kafka:
        raise kafka
    if checks.problems or not all(one.healthy for one in statuses):
        ctx.exit(output.FINDING)


def _row(one: ModelStatus) -> list[object]:
    lag = "?" if one.lag_seconds is None else f"{one.lag_seconds:,.1f} s"
    if one.state in ("new", "stopped"):
        lag = "-"
    backfill = one.backfill[:16].replace("T", " ")  # without seconds, to save space
    if one.backfill_percent is not None:
        backfill = f"{one.backfill_percent}%"
    due = one.work_records - sum(work.items for work in one.work if work.due_in_seconds)
    stale = "–" if one.staleness_seconds is None else f"{one.staleness_seconds:,.1f} s"
    return [one.model, one.state, stale, lag, f"{one.lag_records:,}", f"{due:,}", one.dead_letters, backfill]


def _reasons(one: ModelStatus, source: str) -> Iterator[str]:
    """Yields a line per reason of this read model. Skips the reason of the source, which has its own lines."""
    for reason in one.reasons:
        if reason != source:
            why = _flat(reason)
            yield why if why.startswith(f"{one.model}: ") else f"{one.model}: {why}"


_KINDS = {
    "keys": ("batch of documents", "batches of documents"),
    "range": ("range of documents", "ranges of documents"),
    "sweep": ("sweep", "sweeps"),
}


def _notes(one: ModelStatus) -> Iterator[str]:
    """Yields further facts about a read model, with the command to run next."""
    name = one.model
    if one.state == "new":
        yield f"{name}: it has never run → syncer backfill {name}, then syncer run"
    elif one.backfill == "never":
        why = "documents of rows that have not changed since the first start are missing"
        yield f"{name}: no backfill was run: {why} → syncer backfill {name}"
    elif one.backfill == "unfinished":
        at = f"the backfill is at {one.backfill_percent}%"
        yield f"{name}: {at}; if it was interrupted, continue it: syncer backfill {name}"
    if one.state == "stopped" and not one.reasons:
        yield f"{name}: no daemon runs it → syncer run"
    if built := one.resync:
        at = "planning its key ranges" if built.percent is None else f"at {built.percent}%"
        if built.running:
            yield f"{name}: a resync is {at}"
        else:
            yield f"{name}: a resync was interrupted, {at}; to start it again: syncer resync {name}"
    if one.refresh:
        yield f"{name}: {one.refresh}"
    for work in one.work:
        items = counted(work.items, *_KINDS[work.kind])
        due = f"due in {work.due_in_seconds} s" if work.due_in_seconds else "waiting"
        yield f"{name}: {items} ({work.reason}) {due}"
    if one.dead_letters:
        yield f"{name}: {counted(one.dead_letters, 'open dead letter')} → syncer dlq list {name}"
    if one.verified:
        yield _verification(name, one.verified)


def _verification(name: str, found: Verified) -> str:
    age = output.duration(time.time() - found.at)
    if found.state == "different":
        documents = counted(found.differences, "document")
        return f"{name}: {documents} differed {age} ago → syncer verify {name} --repair"
    if found.state == "old":
        return f"{name}: verification is {age} old → syncer verify {name}"
    return f"{name}: verified {age} ago, {counted(found.documents, 'document')} equal"


@dataclass
class _ServerChecks:
    """Queries all servers except Kafka, each on its own thread, and collects their answers.

    The answers show whether changes reach Kafka at all. Without this check, a read model that receives no changes would
    look as if it had no lag.
    """

    config: Config
    models: Sequence[Model]
    lines: list[str] = field(default_factory=list)
    """Output about the connector and the slot."""
    problems: list[str] = field(default_factory=list)
    reason: str = ""
    """Why changes do not reach Kafka or cannot be rendered; empty if they do."""
    _delivery: Delivery | None = None

    def __post_init__(self) -> None:
        deadline = self._deadline = time.monotonic() + ANSWER_TIMEOUT
        self._database = SystemTime().run_in_background("postgres", lambda: loader.ping(self.config))
        self._collected = False
        self._source: Future[Delivery] | None = None
        if self.config.connect.url:
            self._source = SystemTime().run_in_background("source", lambda: check_delivery(self.config, deadline))
        kinds = dict.fromkeys(kind for one in self.models for kind in one.declaration.sink)
        self._sinks = {kind: SystemTime().run_in_background(kind, partial(self._sink, kind)) for kind in kinds}

    def _sink(self, kind: str) -> list[Finding]:
        found = check_servers.check_sinks(self.config, self.models, kinds=[kind])
        return [finding for group in found.values() for finding in group]

    def readers_and_watermarks(self, values: StateSnapshot) -> tuple[dict[str, str], dict[str, PublishedWatermark]]:
        """Asks the sinks of each read model.

        Returns read model → problem, for those whose readers use documents that are no longer updated, and read model →
        the published watermark. Leaves out read models whose sinks do not answer.
        """
        readers: dict[str, Future[dict[str, SyncerError | None]]] = {}
        watermarks: dict[str, Future[PublishedWatermark | None]] = {}
        for one in self.models:
            if known := values.registration(one.name):
                ask = partial(loader.readers_elsewhere, self.config, one, known.generation)
                readers[one.name] = SystemTime().run_in_background(one.name, ask)
                read = partial(loader.published, self.config, one, known.generation)
                watermarks[one.name] = SystemTime().run_in_background(one.name, read)
        deadline = time.monotonic() + ANSWER_TIMEOUT
        found = {
            name: " ".join(str(error) for error in errors.values() if error)
            for name, errors in _answers(readers, deadline).items()
        }
        return found, {name: one for name, one in _answers(watermarks, deadline).items() if one}

    def collect(self) -> None:
        """Waits for the answers, up to one second after the checks started."""
        if self._collected:
            return
        self._collected = True
        deadline = max(self._deadline, time.monotonic() + 0.1)
        for kind, future in self._sinks.items():
            try:
                found = answer(future, deadline, kind, f"{kind}.url in the configuration")
                self.problems += [_line(finding) for finding in found]
            except SyncerError as error:
                self.problems.append(_flat(str(error)))
        try:
            answer(self._database, deadline, "PostgreSQL", "postgres.dsn")
        except SyncerError as error:
            self.reason = str(error)
            self.problems.append(_flat(self.reason))
        if self._source is None:
            return
        try:
            self._delivery = delivery = self._source.result()
        except SyncerError as error:
            self.problems.append(f"source: {_flat(str(error))}")
            return
        self.lines = _source_lines(delivery)
        self.problems += [_flat(str(error)) for error in delivery.away]
        self.problems = list(dict.fromkeys(self.problems))
        self.reason = next((finding.reason for finding in delivery.findings), self.reason)

    def source(self) -> dict[str, Any]:
        """Returns the state of connector and slot for `--json`."""
        if self._delivery is None:
            return {}
        status, slot = self._delivery.status, self._delivery.slot
        word = status if isinstance(status, str) else status.word if status else "missing"
        return {
            "connector": {"name": self._delivery.connector, "state": word},
            "slot": {"name": self._delivery.slot_name}
            | (asdict(slot) if isinstance(slot, Slot) else {"state": slot or "missing"}),
            "findings": [finding.reason for finding in self._delivery.findings],
        }


def _answers(pending: Mapping[str, Future[T]], deadline: float) -> dict[str, T]:
    """Returns the answers of the sinks by read model. `collect` reports servers that do not answer."""
    found = {}
    for name, future in pending.items():
        with contextlib.suppress(SyncerError):
            found[name] = answer(future, deadline, "a sink", name)
    return found


def _flat(text: str) -> str:
    return " ".join(text.split())


def _line(finding: Finding) -> str:
    return _flat(str(Fatal(finding.what, where=finding.where, why=finding.why, hint=finding.fix)))


def _source_lines(delivery: Delivery) -> list[str]:
    """Returns a line about the connector and one about the slot, with the problem if there is one."""
    problems = {finding.where: finding for finding in delivery.findings}
    lines = []
    for where, state in (
        (f"connector {delivery.connector}", "" if delivery.status == "unknown" else "running"),
        (f"slot {delivery.slot_name}", slot_line(delivery.slot) if isinstance(delivery.slot, Slot) else ""),
    ):
        if finding := problems.get(where):
            lines.append(f"{where}: {finding.what}: {finding.why} → {finding.fix}")
        elif state:
            lines.append(f"{where}: {state}")
    return lines


def slot_line(slot: Slot) -> str:
    """Returns one line: whether the slot is active, how far it is behind, and the state of its WAL."""
    behind = "" if slot.behind is None else f", {slot.behind / 2**20:,.1f} MiB behind"
    return f"{'active' if slot.active else 'not active'}{behind}, WAL {slot.wal_status}"
