"""`syncer status`: how far behind each read model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from syncer import load
from syncer.arrival import Arrival, look
from syncer.checks import Slot
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.config import Config
from syncer.declaration import model
from syncer.errors import SyncerError
from syncer.registry import Registry
from syncer.status import ModelStatus
from syncer.status import status as ask

HEADERS = ["model", "state", "lag", "records", "work", "refused", "backfill (UTC)"]


@command(
    "status",
    """
    syncer status
    syncer status orders
    syncer status --json | jq '.[] | select(.lag_seconds > 60)'
    """,
)
@models_argument
@as_json
@click.pass_context
def status(ctx: click.Context, context: Context, models: Sequence[str], as_json: bool) -> None:
    """Show state and lag of each read model, and why one waits or has failed, as Kafka, Kafka Connect and
    PostgreSQL tell: no daemon is asked.

    lag: age of the oldest change that is not in every sink yet; ? if changes do not come at all, or it is not
    known. work: items waiting (backfill, large fan-outs). refused: dead letters. Exit code 1 if a read model
    waits or has failed.
    """
    config = context.config
    found = load.declared(config, models)
    lines, reason = source(config)
    statuses = ask(Registry(config), {m.name: model.tables(m) for m in found}, source=reason)
    if as_json:
        output.say_json([asdict(one) for one in statuses])
    else:
        output.table(HEADERS, map(_row, statuses), right=(2, 3, 4, 5), whole=True)
        for line in (*_reasons(statuses, reason), *lines):
            output.say(line)
    if any(one.state in ("failed", "waiting") for one in statuses):
        ctx.exit(output.FINDING)


def _row(one: ModelStatus) -> list[object]:
    lag = "?" if one.lag_seconds is None else f"{one.lag_seconds:,.1f} s"
    backfill = one.backfill[:16].replace("T", " ")  # minutes are enough for a reader
    records, work = f"{one.lag_records:,}", f"{one.work_records:,}"
    return [one.model, one.state, lag, records, work, one.dead_letters, backfill]


def _reasons(statuses: Sequence[ModelStatus], source: str) -> list[str]:
    """A line for each read model that has a reason of its own; the source's has lines of its own."""
    own = [(one.model, " ".join(one.reason.split())) for one in statuses if one.reason != source]
    return [why if why.startswith(f"{name}: ") else f"{name}: {why}" for name, why in own if why]


def source(config: Config) -> tuple[list[str], str]:
    """Whether changes arrive at all; a read model that is told nothing has no lag. A line for the connector
    and one for the slot, and the reason why changes do not come; nothing where Kafka Connect is not
    configured."""
    if not config.connect.url:
        return [], ""
    try:
        found = look(config)
    except SyncerError as error:
        return [" ".join(f"source: {error}".split())], ""
    return _lines(found), next((finding.reason for finding in found.findings), "")


def _lines(found: Arrival) -> list[str]:
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
    return lines + [" ".join(f"source: {error}".split()) for error in found.away]


def slot_line(slot: Slot) -> str:
    behind = "" if slot.behind is None else f", {slot.behind / 2**20:,.1f} MiB behind"
    return f"{'active' if slot.active else 'not active'}{behind}, WAL {slot.wal_status}"
