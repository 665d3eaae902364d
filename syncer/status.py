"""Status, as told from Kafka: whether a read model runs, how far behind it is, what stopped it.

It asks no daemon, so it answers also when that is gone. `GET /status` of a daemon tells more of that one.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from syncer import decode
from syncer.change import TableName
from syncer.errors import Reject
from syncer.reasons import written
from syncer.registry import Names, Registry, told_outgrown
from syncer.sources.letters import Standing

_READ_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One read model. Lags are of what no sink has acknowledged yet (as of the last commit of offsets)."""

    model: str
    state: str
    """`new` (never run), `running`, `waiting` (it goes on by itself once its reason is mended), `stopped`,
    `failed`."""
    members: int
    """Consumers that take changes now."""
    lag_records: int
    lag_seconds: float | None
    """Age of the oldest waiting change; None if that record is gone, or if none waits because none comes."""
    work_records: int
    """Work items waiting: backfill ranges, large fan-outs."""
    backfill: str
    """`never`, `unfinished`, or when it was finished (UTC)."""
    dead_letters: int
    """Documents and records that are refused."""
    epoch: int
    generation: int
    last_error: str
    """What stopped it; empty once it runs again."""
    reason: str
    """Why it waits, failed, or is not told of changes; of one that runs, why a resync is due."""


def status(
    registry: Registry, tables: Mapping[str, Collection[TableName]], *, source: str = ""
) -> list[ModelStatus]:
    """tables: read model → its tables, for those to be told of. source: why changes do not come at all; empty
    when they do. Raises Retry when Kafka is away."""
    values = registry.state.load()
    return [_one(registry, model, own, values, source) for model, own in tables.items()]


def _one(
    registry: Registry,
    model: str,
    tables: Collection[TableName],
    values: Mapping[str, Mapping[str, Any]],
    source: str,
) -> ModelStatus:
    known = values.get(model)
    error = values.get(f"{model}/error", {}).get("error", "")
    waits = written(values.get(f"{model}/waiting", {}), time.time_ns() // 1_000_000)
    if known is None:
        reason = error or waits or source
        state = "waiting" if waits else "new"
        return ModelStatus(model, state, 0, 0, None, 0, "never", 0, 0, 0, error, reason)
    names = Names.make(registry.config, model, tables, known["generation"])
    # `tables` has every spelling that could be meant; the topics of the registration are of those that were.
    names = replace(names, changes=tuple(known["starts"]))
    lag, oldest = _changes(registry, names)
    work_ends = registry.topics.ends([names.work_topic, names.backfill_topic])
    work_done = registry.topics.committed(names.work_group) | registry.topics.committed(names.backfill_group)
    members = registry.topics.members(names.group)
    reason = error or waits or source
    state = "running" if members else "stopped"
    if error:
        state = "failed"
    elif waits or (members and source):
        state = "waiting"
    return ModelStatus(
        model,
        state,
        members,
        lag,
        None if reason and not lag else oldest,  # none waits, and none comes: that is not to be in step
        sum(max(0, end - work_done.get(p, 0)) for p, end in work_ends.items()),
        _told(values.get(f"{model}/{known['generation']}/backfill")),
        _standing(registry, names),
        known["epoch"],
        known["generation"],
        error,
        reason or told_outgrown(values.get(f"{model}/{known['generation']}/outgrown", {}), model),
    )


def _changes(registry: Registry, names: Names) -> tuple[int, float | None]:
    """Records waiting, and the age in seconds of the oldest of them."""
    ends = registry.topics.ends(names.changes)
    done = registry.topics.committed(names.group)
    waiting = {p: end - done.get(p, 0) for p, end in ends.items() if end > done.get(p, 0)}
    if not waiting:
        return 0, 0.0
    ages = []
    for topic, partition in waiting:
        record = registry.topics.read_one(topic, partition, done.get((topic, partition), 0), _READ_TIMEOUT)
        try:
            change = record and decode.change(record.position, record.value)
        except Reject:
            continue
        if change:
            ages.append(time.time() - change.committed_ms / 1000)
    return sum(waiting.values()), max(ages, default=None)


def _standing(registry: Registry, names: Names) -> int:
    letters = Standing(registry.topics, names.dead_letters)
    letters.refresh()
    return len(letters)


def _told(run: Mapping[str, Any] | None) -> str:
    if not run:
        return "never"
    if not run["finished_ms"]:
        return "unfinished"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run["finished_ms"] / 1000))
