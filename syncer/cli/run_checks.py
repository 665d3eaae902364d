"""Collects the facts for `syncer check` and `syncer connectors apply`, and passes them to the rules in `checks/`.

One mistake does not hide the others. Each part that cannot be read becomes a finding, and the other parts are still
checked. Only PostgreSQL has to answer. `check_models.py` checks the read models, `check_servers.py` the other servers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import psycopg

from syncer.checks import (
    POSTGRES_CONNECTOR,
    Finding,
    Slot,
    check_connector,
    check_repair,
    check_running,
    check_session_visibility,
    check_source,
    check_version,
    needed_columns,
)
from syncer.checks.running import NoAnswer
from syncer.cli import check_models, check_servers
from syncer.cli.check_report import CheckReport
from syncer.config.schema import Config
from syncer.connect.definition import Definition
from syncer.connect.lookup import connect, find_definition
from syncer.declaration.mistakes import together
from syncer.errors import SyncerError
from syncer.events import TableName
from syncer.postgres.publication import read_facts
from syncer.registry import loader
from syncer.serving.tokens import Tokens

FIXED_BY_APPLY = frozenset({"no-publication", "not-published", "operations", "via-root"})
"""Codes of findings that `syncer connectors apply` fixes itself."""


def run_checks(config: Config, names: Sequence[str] = (), *, live: bool = True, read_only: bool = False) -> CheckReport:
    """Checks configuration, read models, database and connector definition.

    live: also check Kafka, Kafka Connect, the running connector, the sinks and the daemon's HTTP server.
    read_only: do not test mappings with a temporary index in Elasticsearch.
    Raises Retry if PostgreSQL is unreachable.
    """
    report = CheckReport()
    definition: Definition | None = None
    with report.as_finding("Connector", "connector-definition"):
        definition = report.definition = find_definition(config)
    with report.as_finding("Read models", "declaration"):
        report.models, errors = loader.load_valid(config, names)
        if errors:
            raise together(errors)
    with loader.catalog_session(config) as connection:
        for model in report.models:
            check_models.check_declaration(config, connection, model, report)
        if definition is not None:
            _check_source(connection, definition, report)
        row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
        if report.facts is None and row and row[0]:
            what, why = "this server is a standby", "only snapshots of the primary have a clock"
            fix = "set postgres.dsn to the primary"
            report.findings["PostgreSQL"] = [Finding("error", "standby", "postgres.dsn", what, why, fix)]
    check_models.check_targets(report.models, report)
    report.findings["Connector"] = report.findings.pop("Connector")  # listed in the order of the data flow
    if definition is not None:
        _check_definition(config, definition, report)
    if live:
        kafka = check_servers.check_kafka(config, report.loaded, definition)
        if config.connect.url and definition is not None:
            _check_live_connector(config, definition, report, kafka)
        report.findings["Kafka"] = kafka.findings
        report.findings |= check_servers.check_sinks(config, report.models)
        with report.as_finding("HTTP", "http-access"):
            Tokens(config.http)
        if not read_only:
            check_models.try_sinks(config, report)
            for title, found in check_servers.check_publishing(config, report.models).items():
                report.findings.setdefault(title, []).extend(found)
        for title, found in check_servers.check_readers(config, report.models, kafka.registered).items():
            report.findings.setdefault(title, []).extend(found)
    return report


def _check_source(connection: psycopg.Connection[Any], definition: Definition, report: CheckReport) -> None:
    settings = definition.config
    publication, slot = settings.get("publication.name", ""), settings.get("slot.name", "")
    report.facts = read_facts(connection, report.tables, publication=publication, slot=slot)
    tables = report.tables - report.unfit.keys()
    found = check_source(report.facts, tables, connector_role=settings.get("database.user", ""))
    report.findings["PostgreSQL"] = found


def _check_definition(config: Config, definition: Definition, report: CheckReport) -> None:
    found = report.findings["Connector"]
    found += _check_settings(config, definition.config, report, definition.path)
    database = definition.config.get("database.dbname", "")
    if report.facts and database != report.facts.database:
        found.append(
            Finding(
                "error",
                "connector-database",
                f"{definition.path}: database.dbname",
                f"is {database}, but postgres.dsn uses database {report.facts.database}",
                "changes must come from the database in which documents are rendered",
            )
        )


def _check_settings(config: Config, settings: Any, report: CheckReport, where: str) -> list[Finding]:
    needed: dict[TableName, frozenset[str]] = {}
    for one in report.loaded:
        for table, columns in needed_columns(one.compiled, one.catalog).items():
            needed[table] = needed.get(table, frozenset()) | columns
    publication = report.definition.config.get("publication.name", "") if report.definition else ""
    prefix = config.kafka.topic_prefix
    return check_connector(
        settings, report.tables, topic_prefix=prefix, publication=publication, needed=needed, where=where
    )


def _missing_connector(where: str, registered: Collection[str], *, existed: bool) -> Finding:
    """Returns the finding for a connector that does not exist. registered: read models that need it."""
    fix = "syncer connectors apply"
    if not registered:
        return Finding("warning", "not-applied", where, "the connector does not exist yet", fix=fix)
    why = f"no change reaches {', '.join(registered)}"
    if not existed:
        return Finding("error", "not-applied", where, "the connector does not exist yet", why, fix)
    why += ", and the slot retains more and more WAL"
    return Finding("error", "not-applied", where, "the connector was deleted", why, fix)


def _check_resumes(config: Config, version: str, where: str, report: CheckReport) -> Iterator[Finding]:
    """Checks whether the connector loses rows when it resumes, and whether the syncer can detect and repair it."""
    policy = config.source.repair_after_resume
    yield from check_version(version, where)
    yield from check_repair(policy)
    if facts := report.facts:
        yield from check_session_visibility(facts.sees_sessions, facts.role, policy)


def _check_live_connector(
    config: Config, definition: Definition, report: CheckReport, kafka: check_servers.KafkaReport
) -> None:
    """Checks the connector in Kafka Connect.

    If Kafka Connect is unreachable, that is a warning. So is a missing connector, unless read models are registered.
    """
    found = report.findings.setdefault("Kafka Connect", [])
    client, where = connect(config), f"connector {definition.name}"
    try:
        found += _check_resumes(config, client.plugin_version(POSTGRES_CONNECTOR), client.url, report)
        settings = client.config(definition.name)
        if settings is None:
            existed = kafka.streamed or bool(report.facts and report.facts.slot)
            found.append(_missing_connector(where, kafka.registered, existed=existed))
            return
        found += [f for f in _check_settings(config, settings, report, where) if f.severity == "error"]
        status = client.status(definition.name)
        slot: Slot | NoAnswer | None = report.facts.slot if report.facts else "unknown"
        name = definition.config.get("slot.name", "")
        # The check of PostgreSQL already reported a slot that lost its WAL.
        reported = {finding.code for finding in report.all("error")}
        found += [f for f in check_running(definition.name, status, name, slot) if f.code not in reported]
        if client.plan(definition).changes:
            what = f"its settings differ from {definition.path}"
            found.append(Finding("warning", "differs", where, what, fix="syncer connectors apply"))
    except SyncerError as error:
        found.append(Finding("warning", "no-answer", error.where, error.what, error.why, error.hint))
    finally:
        client.close()
