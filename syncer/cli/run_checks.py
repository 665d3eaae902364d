"""Collects the facts for `syncer check` and `syncer connectors apply`, and passes them to the rules in `checks/`.

One mistake does not hide the others. Each part that cannot be read becomes a finding, and the other parts are still
checked. Only PostgreSQL has to answer. `check_servers.py` checks the other servers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from syncer import sinks
from syncer.checks import (
    POSTGRES_CONNECTOR,
    Finding,
    Slot,
    SourceFacts,
    check_connector,
    check_model,
    check_running,
    check_session_visibility,
    check_source,
    check_version,
    needed_columns,
    unfit,
)
from syncer.checks.finding import Severity
from syncer.checks.running import NoAnswer
from syncer.cli import check_servers
from syncer.config.schema import Config
from syncer.connect.definition import Definition
from syncer.connect.lookup import connect, find_definition
from syncer.declaration.mistakes import Mistakes, together
from syncer.declaration.model import Model, yaml_path_of
from syncer.errors import Fatal, SyncerError, Unknown
from syncer.events import TableName
from syncer.postgres.publication import read_facts
from syncer.registry import loader

FIXED_BY_APPLY = frozenset({"no-publication", "not-published", "operations", "via-root"})
"""Codes of findings that `syncer connectors apply` fixes itself."""


@dataclass(slots=True)
class CheckReport:
    """Holds findings by heading, and the facts that they are about."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    loaded: list[loader.LoadedModel] = field(default_factory=list)
    definition: Definition | None = None
    facts: SourceFacts | None = None
    models: list[Model] = field(default_factory=list)

    @property
    def tables(self) -> frozenset[TableName]:
        """Tables that any read model uses."""
        return frozenset(table for loaded in self.loaded for table in loaded.compiled.tables)

    @property
    def unfit(self) -> dict[TableName, str]:
        """Tables that must not be published in their current state, and why."""
        judged = {t: unfit(m.catalog.tables.get(t)) for m in self.loaded for t in m.compiled.tables}
        return {table: why for table, why in sorted(judged.items()) if why}

    def not_covered(self) -> Iterator[str]:
        """Yields objects that the statements in `findings` do not cover, with the reason."""
        if self.facts is None:
            broken = [f for f in self.findings.get("Connector", ()) if f.code == "connector-definition"]
            yield from (f"the publication: {f.where}: {f.what}" for f in broken)
        for finding in self.findings.get("Read models", ()):
            yield f"the tables of a read model: {finding.where}: {finding.what}"
        for model in self.models:
            if all(loaded.model is not model for loaded in self.loaded):
                why = "; ".join(f"{f.where}: {f.what}" for f in self.findings[f"Read model {model.name}"])
                yield f"the tables of read model {model.name}: {why}"
        yield from (f"table {table} in the publication: {why}" for table, why in self.unfit.items())

    def all(self, severity: str = "") -> list[Finding]:
        """Returns all findings, or those of one severity."""
        return [f for found in self.findings.values() for f in found if severity in ("", f.severity)]


def run_checks(config: Config, names: Sequence[str] = (), *, live: bool = True, read_only: bool = False) -> CheckReport:
    """Checks configuration, read models, database and connector definition.

    live: also check Kafka, Kafka Connect, the running connector and the sinks.
    read_only: do not test mappings with a temporary index in Elasticsearch.
    Raises Retry if PostgreSQL is unreachable.
    """
    report = CheckReport()
    definition: Definition | None = None
    with _as_finding(report, "Connector", "connector-definition"):
        definition = report.definition = find_definition(config)
    with _as_finding(report, "Read models", "declaration"):
        report.models, errors = loader.load_valid(config, names)
        if errors:
            raise together(errors)
    with loader.reading(config) as connection:
        for model in report.models:
            _check_declaration(config, connection, model, report)
        if definition is not None:
            _check_source(connection, definition, report)
        row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
        if report.facts is None and row and row[0]:
            what, why = "this server is a standby", "only snapshots of the primary have a clock"
            fix = "set postgres.dsn to the primary"
            report.findings["PostgreSQL"] = [Finding("error", "standby", "postgres.dsn", what, why, fix)]
    _check_targets(report.models, report)
    report.findings["Connector"] = report.findings.pop("Connector")  # listed in the order of the data flow
    if definition is not None:
        _check_definition(config, definition, report)
    if live:
        kafka = check_servers.check_kafka(config, report.loaded)
        if config.connect.url and definition is not None:
            _check_live_connector(config, definition, report, kafka)
        report.findings["Kafka"] = kafka.findings
        report.findings |= check_servers.check_sinks(config, report.models)
        if not read_only:
            _test_sinks(config, report)
        for title, found in check_servers.check_readers(config, report.models, kafka.registered).items():
            report.findings.setdefault(title, []).extend(found)
    return report


@contextmanager
def _as_finding(report: CheckReport, title: str, code: str) -> Iterator[None]:
    """Turns a Fatal error of the block into findings. Unknown names are errors of the command line and pass."""
    found = report.findings.setdefault(title, [])
    try:
        yield
    except Unknown:
        raise
    except Fatal as error:
        for one in error.each if isinstance(error, Mistakes) else [error]:
            found.append(Finding("error", code, one.where or title, one.what, one.why, one.hint))


def _check_declaration(config: Config, connection: psycopg.Connection[Any], model: Model, report: CheckReport) -> None:
    title = f"Read model {model.name}"
    with _as_finding(report, title, "declaration"):
        loaded = loader.compiled(connection, model)
        report.loaded.append(loaded)
        role = connection.info.user
        found = check_model(model.file, loaded.compiled, loaded.catalog, role=role)
        report.findings[title] += found
        if not any(finding.severity == "error" for finding in found):
            loader.plan(connection, loaded)
    for kind, settings in model.declaration.sink.items():
        where = model.at(("sink", kind))
        with _as_finding(report, title, "sink"):
            config.connection(kind, sinks.find(kind, where=where).Connection)
            if report.loaded and report.loaded[-1].model is model:
                for problem in sinks.check(kind, settings, report.loaded[-1].compiled.fields, where=where):
                    report.findings[title].append(_sink_finding("sink", model, kind, problem))


def _sink_finding(code: str, model: Model, kind: str, problem: sinks.Problem) -> Finding:
    path = ("sink", kind, *problem.block)
    if problem.field and not problem.block:
        path = yaml_path_of(model, problem.field)
    severity: Severity = "error" if problem.certain else "note"
    return Finding(severity, code, f"{model.at(path)}: {kind}", problem.what, problem.why, problem.hint)


def _test_sinks(config: Config, report: CheckReport) -> None:
    """Tests on the servers whether they accept each read model. Skips sinks that already have findings."""
    for loaded in report.loaded:
        found = report.findings[f"Read model {loaded.name}"]
        for kind, settings in loaded.model.declaration.sink.items():
            if report.findings.get(f"Sink {kind}") or any(finding.code == "sink" for finding in found):
                continue
            module, where = sinks.find(kind), loaded.model.at(("sink", kind))
            block = sinks.parse(module.Settings, settings, where=where)
            try:
                problems = module.trial(config.connection(kind, module.Connection), block, loaded.compiled)
            except SyncerError as error:
                found.append(Finding("warning", "no-answer", error.where, error.what, error.why, error.hint))
                continue
            found += [_sink_finding("sink-refuses", loaded.model, kind, problem) for problem in problems]


def _check_targets(models: Sequence[Model], report: CheckReport) -> None:
    """Adds an error for read models that write to the same index or keys. They would overwrite each other."""
    owners: dict[tuple[str, str], Model] = {}
    for model in models:
        for kind, settings in model.declaration.sink.items():
            try:
                target = sinks.target_of(kind, settings)
            except Fatal:  # of the block; it is reported with its read model
                continue
            owner = owners.setdefault((kind, target), model) if target else model
            if owner is not model:
                where = model.at(("sink", kind))
                what = f"read model {owner.name} also writes to {kind} {target}"
                fix = sinks.find(kind).TARGET_HINT
                found = Finding("error", "same-target", where, what, "they would overwrite each other", fix)
                report.findings[f"Read model {model.name}"].append(found)


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


def _check_plugin(config: Config, version: str, where: str, report: CheckReport) -> Iterator[Finding]:
    """Checks whether this version of the connector loses rows when it resumes, and whether the syncer can detect it."""
    yield from check_version(version, where)
    if facts := report.facts:
        policy = config.source.repair_after_resume
        yield from check_session_visibility(facts.sees_sessions, facts.role, version, policy)


def _check_live_connector(
    config: Config, definition: Definition, report: CheckReport, kafka: check_servers.KafkaReport
) -> None:
    """Checks the connector in Kafka Connect.

    If Kafka Connect is unreachable, that is a warning. So is a missing connector, unless read models are registered.
    """
    found = report.findings.setdefault("Kafka Connect", [])
    client, where = connect(config), f"connector {definition.name}"
    try:
        found += _check_plugin(config, client.plugin_version(POSTGRES_CONNECTOR), client.url, report)
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
