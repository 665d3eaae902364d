"""`syncer status`: how far behind each read model is, and what is wrong.

All servers are asked at the same time. One that does not answer within a second is reported as such, so that
the answer comes soon whatever is broken.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import click

from syncer.checks import Finding, Slot
from syncer.cli import output, servers
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.config.schema import Config
from syncer.declaration import model
from syncer.declaration.model import Model
from syncer.errors import Fatal, Retry, SyncerError, with_hint
from syncer.monitors.delivery import Delivery, answer, look
from syncer.operations.status import ModelStatus
from syncer.operations.status import status as ask
from syncer.pacing import SystemTime
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.state import StateSnapshot

HEADERS = ["model", "state", "lag", "records", "work", "refused", "backfill (UTC)"]
_WITHIN, _KAFKA_WITHIN = 1.0, 3.0  # seconds


@command(
    "status",
    """
    syncer status
    syncer status orders
    syncer status --json | jq '.models[] | select(.lag_seconds > 60)'
    """,
)
@models_argument
@as_json
@click.pass_context
def status(ctx: click.Context, context: Context, models: Sequence[str], as_json: bool) -> None:
    """Show state and lag of each read model, and what is wrong, as Kafka, Kafka Connect, PostgreSQL and the
    sinks tell: no daemon is asked.

    lag: age of the oldest change that is not in every sink, with fan-outs and what the connector does not
    deliver; ? if it is not known, - for a read model that is new or stopped. work: items waiting (backfill,
    fan-outs, sweeps that are due). refused: dead letters.

    Exit code 0 only if all is well: every read model runs, was backfilled and has no dead letter, every
    server answers, no daemon fails or was killed, and readers see what is kept in sync. Otherwise 1; 4 if
    Kafka is away.
    """
    config = context.config
    declared = loader.declared(config, models)
    asked = _Asked(config, declared)
    registry = open_registry(config)
    statuses: list[ModelStatus] = []
    kafka: Retry | None = None
    try:
        registry.backend.ping(_KAFKA_WITHIN)
        readers = asked.readers(registry.state.load())
        asked.collect()
        tables = {one.name: model.tables(one) for one in declared}
        statuses = ask(registry, tables, source=asked.reason, readers=readers)
    except Retry as error:
        kafka = error
        asked.collect()
    notes = {one.model: list(_notes(one)) for one in statuses}
    if as_json:
        output.echo_json(
            {
                "models": [with_hint(asdict(one)) | {"well": one.well, "notes": notes[one.model]} for one in statuses],
                "source": asked.source(),
                "problems": asked.problems + ([str(kafka)] if kafka else []),
            }
        )
    else:
        if statuses:
            output.table(HEADERS, map(_row, statuses), right=(2, 3, 4, 5), whole=True)
        for one in statuses:
            for line in (*_reasons(one, asked.reason), *notes[one.model]):
                output.echo(line)
        for line in (*asked.lines, *asked.problems):
            output.echo(line)
    if kafka:
        raise kafka
    if asked.problems or not all(one.well for one in statuses):
        ctx.exit(output.FINDING)


def _row(one: ModelStatus) -> list[object]:
    lag = "?" if one.lag_seconds is None else f"{one.lag_seconds:,.1f} s"
    if one.state in ("new", "stopped"):
        lag = "-"
    backfill = one.backfill[:16].replace("T", " ")  # minutes are enough for a reader
    if one.backfill_percent is not None:
        backfill = f"{one.backfill_percent}%"
    due = one.work_records - sum(work.items for work in one.work if work.due_in_seconds)
    return [one.model, one.state, lag, f"{one.lag_records:,}", f"{due:,}", one.dead_letters, backfill]


def _reasons(one: ModelStatus, source: str) -> Iterator[str]:
    """A line for each reason of a read model's own; the source's has lines of its own."""
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
    """What else is worth knowing of a read model, with the command to run."""
    name = one.model
    if one.state == "new":
        yield f"{name}: it has never run → syncer backfill {name}, and syncer run"
    elif one.backfill == "never":
        why = "documents of rows that did not change since it began are missing"
        yield f"{name}: its backfill was never run: {why} → syncer backfill {name}"
    elif one.backfill == "unfinished":
        at = f"its backfill is at {one.backfill_percent}%"
        yield f"{name}: {at}; if it was interrupted: syncer backfill {name}"
    if one.state == "stopped" and not one.reasons:
        yield f"{name}: no daemon runs it → syncer run"
    if built := one.resync:
        at = "being planned" if built.percent is None else f"at {built.percent}%"
        if built.running:
            yield f"{name}: a resync is {at}"
        else:
            yield f"{name}: a resync was interrupted, {at}; to begin again: syncer resync {name}"
    if one.refresh:
        yield f"{name}: {one.refresh}"
    for work in one.work:
        what = f"{work.items:,} {_KINDS[work.kind][work.items != 1]}"
        due = f"due in {work.due_in_seconds} s" if work.due_in_seconds else "waiting"
        yield f"{name}: {what} ({work.reason}) {due}"
    if one.dead_letters:
        yield f"{name}: {output.counted(one.dead_letters, 'dead letter')} → syncer dlq list {name}"


@dataclass
class _Asked:
    """What other servers than Kafka are asked, each on a thread of its own, and what they answered.

    Whether changes arrive at all: a read model that is not told of changes has no lag.
    """

    config: Config
    models: Sequence[Model]
    lines: list[str] = field(default_factory=list)
    """For the connector and the slot."""
    problems: list[str] = field(default_factory=list)
    reason: str = ""
    """Why changes do not come, or cannot be rendered."""
    _arrival: Delivery | None = None

    def __post_init__(self) -> None:
        deadline = self._deadline = time.monotonic() + _WITHIN
        self._database = SystemTime().run_in_background("postgres", lambda: _reach(self.config))
        self._collected = False
        self._look: Future[Delivery] | None = None
        if self.config.connect.url:
            self._look = SystemTime().run_in_background("source", lambda: look(self.config, deadline))
        kinds = dict.fromkeys(kind for one in self.models for kind in one.declaration.sink)
        self._sinks = {kind: SystemTime().run_in_background(kind, partial(self._sink, kind)) for kind in kinds}

    def _sink(self, kind: str) -> list[Finding]:
        found = servers.sinks_of(self.config, self.models, kinds=[kind])
        return [finding for group in found.values() for finding in group]

    def readers(self, values: StateSnapshot) -> dict[str, str]:
        """Read model → what its readers see instead of what is kept in sync. values: of the state topic."""
        asked, deadline = {}, time.monotonic() + _WITHIN
        for one in self.models:
            if known := values.registration(one.name):
                ask_sinks = partial(loader.misread, self.config, one, known.generation)
                asked[one.name] = SystemTime().run_in_background(one.name, ask_sinks)
        found = {}
        for name, future in asked.items():
            try:
                errors = answer(future, deadline, "a sink", name).values()
                found[name] = " ".join(str(error) for error in errors if error)
            except SyncerError:
                continue  # the server's own line says it
        return found

    def collect(self) -> None:
        """Wait for the answers, until the second is over."""
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
        if self._look is None:
            return
        try:
            self._arrival = arrival = self._look.result()
        except SyncerError as error:
            self.problems.append(f"source: {_flat(str(error))}")
            return
        self.lines = _lines(arrival)
        self.problems += [_flat(str(error)) for error in arrival.away]
        self.problems = list(dict.fromkeys(self.problems))
        self.reason = next((finding.reason for finding in arrival.findings), self.reason)

    def source(self) -> dict[str, Any]:
        """For programs."""
        if self._arrival is None:
            return {}
        status, slot = self._arrival.status, self._arrival.slot
        word = status if isinstance(status, str) else status.word if status else "missing"
        return {
            "connector": {"name": self._arrival.connector, "state": word},
            "slot": {"name": self._arrival.slot_name}
            | (asdict(slot) if isinstance(slot, Slot) else {"state": slot or "missing"}),
            "findings": [finding.reason for finding in self._arrival.findings],
        }


def _reach(config: Config) -> None:
    with loader.reading(config) as connection:
        connection.execute("SELECT 1")


def _flat(text: str) -> str:
    return " ".join(text.split())


def _line(finding: Finding) -> str:
    return _flat(str(Fatal(finding.what, where=finding.where, why=finding.why, hint=finding.fix)))


def _lines(found: Delivery) -> list[str]:
    wrong = {finding.where: finding for finding in found.findings}
    lines = []
    for where, told in (
        (f"connector {found.connector}", "" if found.status == "unknown" else "running"),
        (f"slot {found.slot_name}", slot_line(found.slot) if isinstance(found.slot, Slot) else ""),
    ):
        if finding := wrong.get(where):
            told = f"{finding.what}: {finding.why} → {finding.fix}"
        if told:
            lines.append(f"{where}: {told}")
    return lines


def slot_line(slot: Slot) -> str:
    behind = "" if slot.behind is None else f", {slot.behind / 2**20:,.1f} MiB behind"
    return f"{'active' if slot.active else 'not active'}{behind}, WAL {slot.wal_status}"
