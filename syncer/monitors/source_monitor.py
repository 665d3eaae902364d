"""Watches what the read models rest on and cannot see themselves: connector, slot, publication, stream.

A read model that is told nothing has no lag, so silence needs a witness. Every `watch.interval`, on a thread
of its own, the daemon asks PostgreSQL and Kafka Connect, and sends a message through all of it
(`monitors/canary_probe.py`).
While a message does not come, every read model's lag grows.
What keeps changes from coming makes every read model `waiting`, with what to run; what proves that changes
were lost is written to the state topic, and stops every read model until it is built anew.

That a server does not answer is no finding: the read models tell of PostgreSQL and Kafka, and go on without
Kafka Connect's REST interface.
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

_ANSWER = 5.0  # seconds for a statement, and for Kafka Connect
_LISTEN_EVERY = 1.0  # seconds, while a message is on its way

log = structlog.get_logger()


class SourceMonitor:
    """tables: those of all read models, each in the spellings that could be meant."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        metrics: Metrics,
        tables: Collection[Sequence[TableName]],
    ) -> None:
        self.config, self.registry, self.metrics, self.tables = config, registry, metrics, tables
        self.findings: dict[str, Finding] = {}
        """By code: what was found twice in a row. A connector that begins again is no trouble."""
        self._before: set[str] = set()
        self._probe = CanaryProbe(registry)
        self._connection: psycopg.Connection[Any] | None = None
        self._connector = ""
        self._slots: set[str] = set()
        self._slot = self._publication = ""
        self._reader: Reader | None = None
        self._reader_before: Reader | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def reason(self) -> str:
        """Why changes may not come; empty when all is well."""
        return next((finding.reason for finding in self.findings.values()), "")

    def late(self) -> float:
        """Seconds for which the connector has not delivered what was committed; 0 while it does."""
        return self._probe.late()

    def reader(self) -> Reader | None:
        """The slot's, that was last seen twice in a row: a connector that begins has two, one after the
        other."""
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
        while not self._stop.wait(max(0.0, min(_LISTEN_EVERY, due - time.monotonic()))):
            if time.monotonic() >= due:
                due = time.monotonic() + self.config.watch.interval
                self._tell({finding.code: finding for finding in self._look()})
            else:
                self._listen()
            self.metrics.canary_seconds.labels(self.config.kafka.topic_prefix).set(self._probe.age)
        self._drop()

    def _listen(self) -> None:
        """Take what has arrived since the last look, so that a message counts as late only if it is."""
        with contextlib.suppress(SyncerError):  # Kafka is away: the lanes tell it, if it lasts
            self._probe.read()

    def _look(self) -> Iterator[Finding]:
        definition: Definition | None = None
        try:
            definition = find_definition(self.config, names_only=True)
        except SyncerError as error:
            log.debug("no connector to watch", error=str(error))
        if definition:
            status = self._look_at_connector(definition)
            yield from check_running(definition.name, status, "", "unknown")  # PostgreSQL may be away
        try:
            connection, stream = self._session(), self.registry.stream()
            self.metrics.stream_breaks.labels(self.config.kafka.topic_prefix).set(stream.number)
            for slot, size in kept(connection).items():
                self._slots.add(slot)
                self.metrics.slot_bytes_behind.labels(slot).set(size)
            if definition:
                yield from self._look_at_source(connection, definition, status, stream)
            yield from self._look_at_stream(connection)
        except (psycopg.Error, SyncerError) as error:
            self._drop()
            self._forget_source()
            log.debug("cannot watch", error=str(error))

    def _forget_source(self) -> None:
        """What PostgreSQL told last may not be so any more. That a slot was lost stays so."""
        for slot in self._slots:
            self.metrics.slot_bytes_behind.labels(slot).set(math.nan)
        if self._slot:
            self.metrics.slot_active.labels(self._slot).set(0)
        if self._publication:
            self.metrics.publication_findings.labels(self._publication).set(math.nan)

    def _look_at_connector(self, definition: Definition) -> Status | NoAnswer | None:
        if not self.config.connect.url:
            return "unknown"
        client = connect(self.config, timeout=_ANSWER)
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

    def _look_at_source(
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
        self._look_at_slot(facts.slot, slot, stream)
        yield from check_running(definition.name, status, slot, facts.slot)
        missing, self._publication = list(check_publication(facts, tables)), publication
        self.metrics.publication_findings.labels(publication).set(len(missing))
        yield from missing

    def _look_at_slot(self, slot: Slot | None, name: str, stream: Stream) -> None:
        """Remember that it was there; that it is not then, is a loss."""
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
            what = "lost its log" if slot else "is gone"
            why = f"slot {name} {what}, so nobody keeps what was committed since"
            log.error("changes were lost", why=why)
            self.registry.broken(why, stream)

    def _look_at_stream(self, connection: psycopg.Connection[Any]) -> Iterator[Finding]:
        age = self._probe.look(connection, self.registry.stream())
        if age > self.config.watch.overdue:
            what = f"a message that was committed to PostgreSQL's log {age:.0f} s ago has not come"
            why = "changes may not come either: connector, publication, or a backlog"
            yield Finding("error", "canary", f"topic {self._probe.topic}", what, why, "syncer check")

    def _session(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = session(self.config.postgres.arguments(), statement_timeout=_ANSWER)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tell(self, found: dict[str, Finding]) -> None:
        told = {code: finding for code, finding in found.items() if code in self._before}
        self._before = set(found)
        for code, finding in told.items():
            if code not in self.findings:
                log.error("changes may not come", reason=finding.reason)
        for code in self.findings.keys() - told.keys():
            log.info("mended", reason=self.findings[code].reason)
        self.findings = told
