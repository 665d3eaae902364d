"""Monitors the connector, its slot, the publication and the stream of changes, for all read models of the daemon.

A read model that receives no events has no lag. So an independent check has to detect silence. Every `watch.interval`
a thread of the daemon asks PostgreSQL and Kafka Connect, and sends a message along the path of the changes
(`monitors/canary_probe.py`). While a message does not arrive, the lag of every read model grows.

A finding that keeps changes from arriving puts every read model into the state `waiting`, with the command to run. A
proof that changes were lost is saved in the state topic. It stops every read model until a resync.

A server that does not answer is not a finding. The read models report PostgreSQL and Kafka themselves, and they do not
need Kafka Connect's REST interface.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import psycopg
import structlog

from syncer.checks import Finding, Reader, Slot, Status, check_publication, check_running
from syncer.checks.running import NoAnswer, lost
from syncer.config.schema import Config
from syncer.connect.definition import Definition
from syncer.connect.lookup import connect, find_definition
from syncer.declaration.model import meant
from syncer.errors import SyncerError, with_hint
from syncer.events import TableName
from syncer.monitors.canary_probe import CanaryProbe
from syncer.postgres import catalog
from syncer.postgres.publication import read_facts
from syncer.postgres.session import connect as session
from syncer.postgres.wal import kept
from syncer.registry.records import Stream
from syncer.registry.registry import Registry
from syncer.telemetry.metrics import Metrics

_TIMEOUT = 5.0  # seconds, for a statement and for Kafka Connect
_READ_EVERY = 1.0  # seconds, while a message is expected

log = structlog.get_logger()


class SourceMonitor:
    """Monitors the source on a thread of its own.

    tables: the tables of all read models. Each is a list of the spellings that the declaration could mean.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        metrics: Metrics,
        tables: Collection[Sequence[TableName]],
    ) -> None:
        self.config, self.registry, self.metrics, self.tables = config, registry, metrics, tables
        self.findings: dict[str, Finding] = {}
        """By code, the findings of two checks in a row. A connector that restarts is not a finding."""
        self._found_before: set[str] = set()
        self._probe = CanaryProbe(registry)
        self._connection: psycopg.Connection[Any] | None = None
        self._connector = ""
        self._slots: set[str] = set()
        self._slot = self._publication = ""
        self._reader: Reader | None = None
        self._reader_before: Reader | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source-monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def reason(self) -> str:
        """Returns why changes may not arrive; empty while they do."""
        return next((finding.reason for finding in self.findings.values()), "")

    def late(self) -> float:
        """Returns the seconds for which the connector has not delivered committed changes; 0 while it delivers."""
        return self._probe.late()

    def reader(self) -> Reader | None:
        """Returns the reader of the slot that two checks in a row have seen.

        A connector that starts has two readers, one after the other. The first of them does not count.
        """
        return self._reader

    def status(self) -> dict[str, Any]:
        return {
            "connector": self._connector,
            "late_seconds": round(self.late(), 3),
            "findings": [with_hint({"reason": finding.reason}) for finding in self.findings.values()],
        }

    # -- on its thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        due = time.monotonic() + self.config.watch.interval
        while not self._stop.wait(max(0.0, min(_READ_EVERY, due - time.monotonic()))):
            if time.monotonic() >= due:
                due = time.monotonic() + self.config.watch.interval
                self._report({finding.code: finding for finding in self._check()})
            else:
                self._read_canary()
            self.metrics.canary_age_seconds.labels(self.config.kafka.topic_prefix).set(self._probe.age)
        self._disconnect()

    def _read_canary(self) -> None:
        """Reads messages also between two checks, so that a message that has arrived does not count as late."""
        with contextlib.suppress(SyncerError):  # Kafka is unreachable: the lanes report it, if it lasts
            self._probe.read()

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
            for slot, size in kept(connection).items():
                self._slots.add(slot)
                self.metrics.slot_retained_bytes.labels(slot).set(size)
            if definition:
                yield from self._check_source(connection, definition, status, stream)
            yield from self._check_stream(connection)
        except (psycopg.Error, SyncerError) as error:
            self._disconnect()
            self._clear_source_metrics()
            log.debug("source cannot be monitored", error=str(error))

    def _clear_source_metrics(self) -> None:
        """Clears the values that may not be true any more. A slot that was lost stays lost."""
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
        if slot and slot.reader and slot.reader == self._reader_before:
            self._reader = slot.reader
        self._reader_before = slot.reader if slot else None
        gone = lost(slot)
        self.metrics.slot_lost.labels(name).set(gone)
        self.metrics.slot_active.labels(name).set(bool(slot and slot.active))
        self._slot = name
        if not gone and stream.slot != name:
            self.registry.note_slot(stream, name)
        elif gone and stream.slot == name:
            what = "was invalidated" if slot else "does not exist any more"
            why = f"slot {name} {what}, so PostgreSQL has not kept the changes that were committed since"
            log.error("changes were lost", why=why)
            self.registry.broken(why, stream)

    def _check_stream(self, connection: psycopg.Connection[Any]) -> Iterator[Finding]:
        age = self._probe.check(connection, self.registry.stream())
        if age > self.config.watch.overdue:
            what = f"a message that was committed to PostgreSQL's log {age:.0f} s ago has not arrived"
            why = "changes may be missing too; check the connector, the publication and the backlog"
            yield Finding("error", "canary", f"topic {self._probe.topic}", what, why, "syncer check")

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
