"""Monitors the connector, its slot, the publication and the stream of changes, for all read models of the daemon.

A read model that receives no events has no lag. So an independent check has to detect silence. Every `watch.interval`
a thread of the daemon asks PostgreSQL and Kafka Connect, and sends a message along the path of the changes
(`freshness/probe.py`). While a message does not arrive, the lag of every read model grows.

A finding that keeps changes from arriving puts every read model into the state `waiting`, with the command to run. A
proof that changes were lost is saved in the state topic. It stops every read model until a resync.

A server that does not answer is not a finding. The read models report PostgreSQL and Kafka themselves, and they do not
need Kafka Connect's REST interface.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import psycopg
import structlog

from syncer.checks import Finding, Slot, Status, check_publication, check_running
from syncer.checks.running import NoAnswer, lost
from syncer.config.schema import Config
from syncer.connect.definition import Definition
from syncer.connect.lookup import connect, find_definition
from syncer.declaration.model import meant
from syncer.errors import SyncerError, with_hint
from syncer.events import TableName
from syncer.monitors.background import BackgroundThread
from syncer.monitors.slot_forecast import SlotForecast
from syncer.postgres import catalog
from syncer.postgres.publication import read_facts
from syncer.postgres.session import connect as session
from syncer.postgres.wal import RetainedWal, retained_wal
from syncer.registry.records import Stream
from syncer.registry.registry import Registry
from syncer.telemetry.metrics import Metrics

_TIMEOUT = 5.0  # seconds, for a statement and for Kafka Connect

log = structlog.get_logger()


class Messages(Protocol):
    """The messages that a daemon sends along the path of the changes. `freshness.probe.Probe` sends them."""

    topic: str

    @property
    def age(self) -> float:
        """Seconds since the commit of the oldest message that has not arrived; 0 if none is missing."""
        ...

    def late(self) -> float:
        """Seconds for which the connector has not delivered; 0 while messages arrive."""
        ...


class SourceHealth(Protocol):
    """The state of the connector that all read models share."""

    def reason(self) -> str:
        """Why changes may not arrive; empty while they do."""
        ...

    def late(self) -> float:
        """Seconds for which the connector has not delivered committed changes; 0 while it delivers."""
        ...


class Unmonitored:
    """The health of a source that nothing monitors: commands report the connector themselves."""

    def reason(self) -> str:
        return ""

    def late(self) -> float:
        return 0.0


class SourceMonitor(BackgroundThread):
    """Monitors the source on a thread of its own.

    tables: the tables of all read models. Each is a list of the spellings that the declaration could mean.
    messages: those of this process.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        metrics: Metrics,
        tables: Collection[Sequence[TableName]],
        messages: Messages,
    ) -> None:
        super().__init__("source-monitor")
        self.config, self.registry, self.metrics, self.tables = config, registry, metrics, tables
        self.findings: dict[str, Finding] = {}
        """By code, the findings of two checks in a row. A connector that restarts is not a finding."""
        self._found_before: set[str] = set()
        self._messages = messages
        self._connection: psycopg.Connection[Any] | None = None
        self._connector = ""
        self._slots: set[str] = set()
        self._slot = self._publication = ""
        self._wal: dict[str, RetainedWal] = {}
        self._forecast = SlotForecast()
        self._slot_seconds_left: float | None = None

    def reason(self) -> str:
        """Returns why changes may not arrive; empty while they do."""
        return next((finding.reason for finding in self.findings.values()), "")

    def late(self) -> float:
        """Returns the seconds for which the connector has not delivered committed changes; 0 while it delivers."""
        return self._messages.late()

    def status(self) -> dict[str, Any]:
        return {
            "connector": self._connector,
            "late_seconds": round(self.late(), 3),
            "findings": [with_hint({"reason": finding.reason}) for finding in self.findings.values()],
            "slot": self._slot_status(),
        }

    def _slot_status(self) -> dict[str, Any] | None:
        """Returns the WAL that the connector's slot retains. None while it is not known."""
        wal = self._wal.get(self._slot)
        if wal is None:
            return None
        left = self._slot_seconds_left
        return {
            "name": self._slot,
            "retained_bytes": wal.retained,
            "limit_bytes": wal.limit,
            "remaining_bytes": wal.remaining,
            "lost_in_seconds": None if left is None else round(left),
        }

    # -- on its thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(self.config.watch.interval):
            self._report({finding.code: finding for finding in self._check()})
            self.metrics.canary_age_seconds.labels(self.config.kafka.topic_prefix).set(self._messages.age)
        self._disconnect()

    def _check(self) -> Iterator[Finding]:
        definition: Definition | None = None
        try:
            definition = find_definition(self.config, names_only=True)
        except SyncerError as error:
            log.debug("no connector to monitor", error=str(error))
        if definition:
            status = self._check_connector(definition)
            yield from check_running(definition.name, status, "", "unknown")  # PostgreSQL may be unreachable
        try:
            connection, stream = self._session(), self.registry.stream()
            self.metrics.stream_breaks.labels(self.config.kafka.topic_prefix).set(stream.number)
            self._wal = retained_wal(connection)
            for slot, wal in self._wal.items():
                self._slots.add(slot)
                self.metrics.slot_retained_bytes.labels(slot).set(wal.retained)
            if definition:
                yield from self._check_source(connection, definition, status, stream)
            yield from self._check_messages()
        except (psycopg.Error, SyncerError) as error:
            self._disconnect()
            self._clear_source_metrics()
            log.debug("source cannot be monitored", error=str(error))

    def _clear_source_metrics(self) -> None:
        """Clears the values that may not be true any more. A slot that was lost stays lost."""
        self._wal = {}
        for slot in self._slots:
            self.metrics.slot_retained_bytes.labels(slot).set(math.nan)
        if self._slot:
            self.metrics.slot_active.labels(self._slot).set(0)
        if self._publication:
            self.metrics.publication_findings.labels(self._publication).set(math.nan)

    def _check_connector(self, definition: Definition) -> Status | NoAnswer | None:
        if not self.config.connect.url:
            return "unknown"
        client = connect(self.config, timeout=_TIMEOUT)
        try:
            status = client.status(definition.name)
        except SyncerError as error:
            self._connector = "unknown"
            self.metrics.connector_running.labels(definition.name).set(0)
            log.debug("Kafka Connect does not answer", error=str(error))
            return "unknown"
        finally:
            client.close()
        self._connector = status.word if status else "missing"
        self.metrics.connector_running.labels(definition.name).set(bool(status and status.running))
        return status

    def _check_source(
        self,
        connection: psycopg.Connection[Any],
        definition: Definition,
        status: Status | NoAnswer | None,
        stream: Stream,
    ) -> Iterator[Finding]:
        existing = catalog.load(connection, {table for spelled in self.tables for table in spelled}).tables
        tables = meant(self.tables, existing)
        settings = definition.config
        publication, slot = settings.get("publication.name", ""), settings.get("slot.name", "")
        facts = read_facts(connection, tables, publication=publication, slot=slot)
        self._check_slot(facts.slot, slot, stream)
        yield from check_running(definition.name, status, slot, facts.slot)
        missing, self._publication = list(check_publication(facts, tables)), publication
        self.metrics.publication_findings.labels(publication).set(len(missing))
        yield from missing

    def _check_slot(self, slot: Slot | None, name: str, stream: Stream) -> None:
        """Saves that the slot was there. If it is missing or invalid later, changes are lost."""
        gone = lost(slot)
        self.metrics.slot_lost.labels(name).set(gone)
        self.metrics.slot_active.labels(name).set(bool(slot and slot.active))
        self._slot = name
        if wal := self._wal.get(name):
            self._forecast.add(time.monotonic(), wal.retained)
            self._slot_seconds_left = self._forecast.seconds_left(wal.remaining)
        if not gone and stream.slot != name:
            self.registry.record_slot(stream, name)
        elif gone and stream.slot == name:
            what = "was invalidated" if slot else "does not exist any more"
            why = f"slot {name} {what}, so PostgreSQL has not kept the changes that were committed since"
            log.error("changes were lost", why=why)
            self.registry.broken(why, stream)

    def _check_messages(self) -> Iterator[Finding]:
        age = self._messages.age
        if age > self.config.watch.overdue:
            what = f"a message that was committed to WAL {age:.0f} s ago has not arrived"
            why = "changes may be missing too; check the connector, the publication and the backlog"
            yield Finding("error", "canary", f"topic {self._messages.topic}", what, why, "syncer check")

    def _session(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = session(self.config.postgres.arguments(), statement_timeout=_TIMEOUT)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _report(self, found: dict[str, Finding]) -> None:
        """Takes over the findings that the check before found, too, and logs those that are new or resolved."""
        confirmed = {code: finding for code, finding in found.items() if code in self._found_before}
        self._found_before = set(found)
        for code, finding in confirmed.items():
            if code not in self.findings:
                log.error("changes may not arrive", reason=finding.reason)
        for code in self.findings.keys() - confirmed.keys():
            log.info("problem resolved", reason=self.findings[code].reason)
        self.findings = confirmed
