"""Watches what the read models rest on and cannot see themselves: connector, slot, publication, stream.

A read model that is told nothing has no lag, so silence needs a witness. Every `watch.interval`, on a thread
of its own, the daemon asks PostgreSQL and Kafka Connect, and sends a message through all of it (`probe.py`).
What keeps changes from coming makes every read model `waiting`, with what to run; what proves that changes
were lost is written to the state topic, and stops every read model until it is built anew.

That a server does not answer is no finding: the read models tell of PostgreSQL and Kafka, and go on without
Kafka Connect's REST interface.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import structlog

from syncer.change import TableName
from syncer.checks import Finding, SourceFacts, check_publication
from syncer.config import Config
from syncer.connect import Status
from syncer.connectors import connect, find_definition
from syncer.definition import Definition
from syncer.errors import Retry, SyncerError
from syncer.metrics import Metrics
from syncer.probe import Probe
from syncer.registry import Registry
from syncer.rows import catalog
from syncer.rows.log import kept
from syncer.rows.publication import read_facts
from syncer.rows.session import connect as session
from syncer.sources.state import Stream

_ANSWER = 5.0  # seconds for a statement

log = structlog.get_logger()


class Watch:
    """tables: those of all read models, in each spelling that could be meant."""

    def __init__(
        self, config: Config, registry: Registry, metrics: Metrics, tables: Collection[TableName]
    ) -> None:
        self.config, self.registry, self.metrics, self.tables = config, registry, metrics, tables
        self.findings: dict[str, Finding] = {}
        """By code: what was found twice in a row. A connector that begins again is no trouble."""
        self._before: set[str] = set()
        self._probe = Probe(registry)
        self._connection: psycopg.Connection[Any] | None = None
        self._connector = ""
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
        return next((_text(finding) for finding in self.findings.values()), "")

    def status(self) -> dict[str, Any]:
        return {
            "connector": self._connector,
            "findings": [_text(finding) for finding in self.findings.values()],
        }

    # -- on its thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(self.config.watch.interval):
            self._tell({finding.code: finding for finding in self._look()})
        self._drop()

    def _look(self) -> Iterator[Finding]:
        definition: Definition | None = None
        try:
            definition = find_definition(self.config)
        except SyncerError as error:
            log.debug("no connector to watch", error=str(error))
        if definition:
            yield from self._look_at_connector(definition)
        try:
            connection, stream = self._session(), self.registry.stream()
            self.metrics.stream_breaks.labels(self.config.kafka.topic_prefix).set(stream.number)
            for slot, size in kept(connection).items():
                self.metrics.slot_bytes_behind.labels(slot).set(size)
            if definition:
                yield from self._look_at_source(connection, definition, stream)
            yield from self._look_at_stream(connection)
        except (psycopg.Error, SyncerError) as error:
            self._drop()
            log.debug("cannot watch", error=str(error))

    def _look_at_connector(self, definition: Definition) -> Iterator[Finding]:
        if not self.config.connect.url:
            return
        client, where = connect(self.config), f"connector {definition.name}"
        try:
            status = client.status(definition.name)
        except SyncerError as error:
            self._connector = "unknown"
            log.debug("Kafka Connect does not answer", error=str(error))
            return
        finally:
            client.close()
        running = bool(status and status.running)
        self._connector = "running" if running else _state(status)
        self.metrics.connector_running.labels(definition.name).set(running)
        if status is None:
            yield Finding("error", "connector", where, "it is not there", fix="syncer connectors apply")
        elif status.failure:
            first, *causes = status.failure.split("\n")
            why = " ".join([first, *causes[-1:]])[:500]
            fix = "mend the cause, then: syncer connectors apply"
            yield Finding("error", "connector", where, "it has failed", why, fix)
        elif not running:
            yield Finding("error", "connector", where, f"it is {self._connector}")

    def _look_at_source(
        self, connection: psycopg.Connection[Any], definition: Definition, stream: Stream
    ) -> Iterator[Finding]:
        tables = catalog.load(connection, self.tables).tables.keys()
        settings = definition.config
        publication, slot = settings.get("publication.name", ""), settings.get("slot.name", "")
        facts = read_facts(connection, tables, publication=publication, slot=slot)
        missing = list(check_publication(facts, tables))
        self.metrics.publication_findings.labels(publication).set(len(missing))
        yield from missing
        yield from self._look_at_slot(facts, slot, stream)

    def _look_at_slot(self, facts: SourceFacts, name: str, stream: Stream) -> Iterator[Finding]:
        slot, where = facts.slot, f"slot {name}"
        lost = slot is None or slot.wal_status == "lost"
        self.metrics.slot_lost.labels(name).set(lost)
        self.metrics.slot_active.labels(name).set(bool(slot and slot.active))
        if not lost and stream.slot != name:
            self.registry.state.save(self.registry.stream_key, replace(stream, slot=name))
        elif lost and stream.slot == name:
            why = f"{where} {'lost its log' if slot else 'is gone'}, so nobody keeps what was committed since"
            log.error("changes were lost", why=why)
            self.registry.broken(why, stream)
        if lost:
            what = "the log that it needs is gone" if slot else "it does not exist"
            fix = "syncer connectors reset (or apply, if the connector was never applied)"
            yield Finding("error", "slot", where, what, "changes do not arrive", fix)
        elif slot and not slot.active:
            why = "changes do not arrive; PostgreSQL's log says why, if a reader comes and goes"
            fix = "syncer connectors apply (if the publication was made anew: syncer connectors reset)"
            yield Finding("error", "slot", where, "nobody reads it", why, fix)

    def _look_at_stream(self, connection: psycopg.Connection[Any]) -> Iterator[Finding]:
        age = self._probe.look(connection, self.registry.stream())
        self.metrics.canary_seconds.labels(self.config.kafka.topic_prefix).set(age)
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
                log.error("changes may not come", reason=_text(finding))
        for code in self.findings.keys() - told.keys():
            log.info("mended", reason=_text(self.findings[code]))
        self.findings = told


def _state(status: Status | None) -> str:
    if status is None:
        return "missing"
    if status.failure:
        return "failed"
    return next((t.state.lower() for t in status.tasks if t.state != "RUNNING"), status.state.lower())


def _text(finding: Finding) -> str:
    """As errors are told."""
    return str(Retry(finding.what, where=finding.where, why=finding.why, hint=finding.fix.replace("\n", " ")))
