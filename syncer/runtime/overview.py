"""Answers `GET /overview`: everything that the page and `syncer top` show, as one JSON value.

One request brings the state of all read models and the samples that the caller does not have yet. So an update of the
page is one small request. All values come from memory.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from syncer.errors import with_hint
from syncer.monitors.wait_status import HasStatus
from syncer.quantities import counted
from syncer.registry.records import Process
from syncer.telemetry.history import KEPT, History
from syncer.telemetry.metrics import Metrics, by_model

EVERY = 2.0
"""Seconds between two samples."""
_COMMAND = re.compile(
    r"(?<![\w/.-])syncer [a-z]+(?: (?:apply|status|reset|delete|list|show|replay|drop|--[\w-]+|MODEL\b))*"
)
"""A command in a text for people. MODEL stands for the name of the read model."""


class HasSource(Protocol):
    """The connector and its slot (`monitors/source_monitor.py`)."""

    def status(self) -> Mapping[str, Any]: ...


class HasProgress(Protocol):
    """The long operations of each read model (`monitors/model_progress.py`)."""

    def of(self, model: str) -> Mapping[str, Any]: ...


class Overview:
    """Collects samples and makes the value.

    models: the read models of this process by name. sinks: the kinds of sink of each of them.
    """

    def __init__(
        self,
        process: Process,
        version: str,
        models: Mapping[str, HasStatus],
        sinks: Mapping[str, Sequence[str]],
        source: HasSource,
        progress: HasProgress,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._process = {"id": process.id, "host": process.host, "pid": process.pid}
        self._version, self._models, self._sinks, self._source = version, models, sinks, source
        self._progress, self._metrics, self._clock = progress, metrics, clock
        self._history = History()
        self._sampled_at = 0.0
        self._totals: tuple[float, dict[str, float], dict[str, float]] | None = None
        self._rates: dict[str, tuple[float, float]] = {}

    def sample(self) -> None:
        """Takes a sample if the last one is `EVERY` seconds old. Only for one thread."""
        now = self._clock()
        if 0 <= now - self._sampled_at < EVERY - 0.5:
            return
        self._sampled_at = now
        self._measure(now)
        values: dict[str, float | None] = {}
        for name, model in self._models.items():
            status = model.status()
            values[f"{name}/lag"] = status["lag_seconds"]
            values[f"{name}/staleness"] = status.get("staleness_seconds")
            values[f"{name}/records"], values[f"{name}/writes"] = self._rates.get(name, (None, None))
        slot = self._source.status().get("slot")
        values["/slot"] = slot["retained_bytes"] if slot else None
        self._history.add(round(now, 1), values)

    def read(self, since: float = 0.0) -> dict[str, Any]:
        """Returns the value. since: leaves out samples up to this time, in seconds since the Unix epoch."""
        now = self._clock()
        at, columns = self._history.columns(since)
        series: dict[str, dict[str, list[float | None]]] = {name: {} for name in self._models}
        for key, values in columns.items():
            name, _, kind = key.rpartition("/")
            series.setdefault(name, {})[kind] = values
        slot = series.pop("", {}).get("slot", [])
        letters = by_model(self._metrics.dead_letters)
        return {
            "version": self._version,
            "process": self._process,
            "now": round(now, 3),
            "models": {name: self._model(name, letters.get(name), now) for name in self._models},
            "source": self._source_status(),
            "history": {"every": EVERY, "kept": KEPT, "at": at, "models": series, "slot": slot},
        }

    def _model(self, name: str, letters: float | None, now: float) -> dict[str, Any]:
        status = with_hint(self._models[name].status())
        progress = self._progress.of(name)
        records, writes = self._rates.get(name, (None, None))
        return {
            **status,
            "sinks": self._sinks.get(name, ()),
            "records_per_second": records,
            "writes_per_second": writes,
            "dead_letters": None if letters is None else int(letters),
            **progress,
            "commands": commands(status["hint"], name),
            "next_steps": [
                {"text": text, "command": command} for text, command in next_steps(name, letters or 0, progress, now)
            ],
        }

    def _source_status(self) -> dict[str, Any]:
        status = dict(self._source.status())
        findings = status.get("findings", ())
        return {**status, "findings": [{**one, "commands": commands(one["hint"])} for one in findings]}

    def _measure(self, now: float) -> None:
        """Measures the rates since the last sample: change records per second, documents written per second."""
        records = by_model(self._metrics.events)
        writes = by_model(self._metrics.documents, outcome=("written", "deleted"))
        before, self._totals = self._totals, (now, records, writes)
        if before and (seconds := now - before[0]) > 0:
            for name in self._models:
                self._rates[name] = (
                    round((records.get(name, 0.0) - before[1].get(name, 0.0)) / seconds, 1),
                    round((writes.get(name, 0.0) - before[2].get(name, 0.0)) / seconds, 1),
                )


def commands(hint: str, model: str = "") -> list[str]:
    """Returns the commands of the syncer that a hint names, without the words around them."""
    pattern = _COMMAND.pattern.replace("MODEL", re.escape(model or "MODEL"))
    return list(dict.fromkeys(re.findall(pattern, hint)))


def next_steps(model: str, letters: float, progress: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    """Yields what an operator should do although the read model may run: a sentence, and the command.

    letters: number of open dead letters. progress: of `ProgressMonitor`; empty while it is unknown.
    now: seconds since the Unix epoch.
    """
    backfill, verification = progress.get("backfill"), progress.get("verification")
    if backfill and backfill["state"] == "never":
        yield "No backfill was run. Documents of rows that have not changed are missing.", f"syncer backfill {model}"
    if (built := progress.get("resync")) and not built["running"]:
        yield "A resync was interrupted. To start it again:", f"syncer resync {model}"
    if letters:
        open_letters = counted(round(letters), "document or record is", "documents or records are")
        yield f"{open_letters} rejected.", f"syncer dlq list {model}"
    if not backfill or backfill["state"] != "done":
        return
    if not verification:
        yield "The documents were never compared with PostgreSQL.", f"syncer verify {model}"
    elif verification["state"] == "old":
        days = (now - verification["at"]) / 86_400
        yield (
            f"The last verification is {counted(round(days), 'day')} old.",
            f"syncer verify {model}",
        )
    elif verification["state"] == "different":
        yield "The last verification found differences.", f"syncer verify {model} --repair"
