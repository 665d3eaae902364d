"""Gathers the facts for `syncer check` and `syncer connectors apply`, and has `checks/` judge them.

One mistake does not hide the others: what cannot be read, because something before it is wrong, becomes a
finding, and the rest is looked at. Only PostgreSQL has to answer. `servers.py` asks the others.
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
    check_sight,
    check_source,
    check_version,
    needed_columns,
    unfit,
)
from syncer.checks.finding import Severity
from syncer.checks.running import NoAnswer
from syncer.cli import servers
from syncer.config.schema import Config
from syncer.connect.definition import Definition
from syncer.connect.lookup import connect, find_definition
from syncer.declaration.mistakes import Mistakes, together
from syncer.declaration.model import Model, place_of
from syncer.errors import Fatal, SyncerError, Unknown
from syncer.events import TableName
from syncer.postgres.publication import read_facts
from syncer.registry import loader

MENDED_BY_APPLY = frozenset({"no-publication", "not-published", "operations", "via-root"})
"""Codes of findings that `syncer connectors apply` makes good itself."""


@dataclass(slots=True)
class Survey:
    """What was found, under a heading each; and what the findings are about."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)
    loaded: list[loader.LoadedModel] = field(default_factory=list)
    definition: Definition | None = None
    facts: SourceFacts | None = None
    models: list[Model] = field(default_factory=list)

    @property
    def tables(self) -> frozenset[TableName]:
        return frozenset(table for one in self.loaded for table in one.compiled.tables)

    @property
    def unfit(self) -> dict[TableName, str]:
        """Tables that must not be published as they are, and why."""
        judged = {t: unfit(one.catalog.tables.get(t)) for one in self.loaded for t in one.compiled.tables}
        return {table: why for table, why in sorted(judged.items()) if why}

    def left_out(self) -> Iterator[str]:
        """What the statements in `findings` do not cover, and why."""
        if self.facts is None:
            broken = [f for f in self.findings.get("Connector", ()) if f.code == "connector-definition"]
            yield from (f"the publication: {f.where}: {f.what}" for f in broken)
        for finding in self.findings.get("Read models", ()):
            yield f"the tables of a read model: {finding.where}: {finding.what}"
        for model in self.models:
            if all(one.model is not model for one in self.loaded):
                why = "; ".join(f"{f.where}: {f.what}" for f in self.findings[f"Read model {model.name}"])
                yield f"the tables of read model {model.name}: {why}"
        yield from (f"table {table} in the publication: {why}" for table, why in self.unfit.items())

    def all(self, severity: str = "") -> list[Finding]:
        return [f for found in self.findings.values() for f in found if severity in ("", f.severity)]


def survey(config: Config, names: Sequence[str] = (), *, live: bool = True, read_only: bool = False) -> Survey:
    """Look at everything; live: at the connector that runs and the servers, too; read_only: without making an
    index to see whether Elasticsearch takes it. Raises Retry when PostgreSQL is away."""
    result = Survey()
    definition: Definition | None = None
    with _as_finding(result, "Connector", "connector-definition"):
        definition = result.definition = find_definition(config)
    with _as_finding(result, "Read models", "declaration"):
        result.models, errors = loader.load_valid(config, names)
        if errors:
            raise together(errors)
    with loader.reading(config) as connection:
        for model in result.models:
            _model(config, connection, model, result)
        if definition is not None:
            _source(connection, definition, result)
        row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
        if result.facts is None and row and row[0]:
            what, why = "this server is a standby", "its snapshots have no clock"
            fix = "set postgres.dsn to the primary"
            result.findings["PostgreSQL"] = [Finding("error", "standby", "postgres.dsn", what, why, fix)]
    _targets(result.models, result)
    result.findings["Connector"] = result.findings.pop("Connector")  # in the order of the way
    if definition is not None:
        _connector(config, definition, result)
    if live:
        kafka = servers.kafka(config, result.loaded)
        if config.connect.url and definition is not None:
            _live(config, definition, result, kafka)
        result.findings["Kafka"] = kafka.findings
        result.findings |= servers.sinks_of(config, result.models)
        if not read_only:
            _try_sinks(config, result)
        for title, found in servers.readers(config, result.models, kafka.registered).items():
            result.findings.setdefault(title, []).extend(found)
    return result


@contextmanager
def _as_finding(result: Survey, title: str, code: str) -> Iterator[None]:
    found = result.findings.setdefault(title, [])
    try:
        yield
    except Unknown:
        raise
    except Fatal as error:
        for one in error.each if isinstance(error, Mistakes) else [error]:
            found.append(Finding("error", code, one.where or title, one.what, one.why, one.hint))


def _model(config: Config, connection: psycopg.Connection[Any], model: Model, result: Survey) -> None:
    title = f"Read model {model.name}"
    with _as_finding(result, title, "declaration"):
        loaded = loader.compiled(connection, model)
        result.loaded.append(loaded)
        role = connection.info.user
        found = check_model(model.file, loaded.compiled, loaded.catalog, role=role)
        result.findings[title] += found
        if not any(finding.severity == "error" for finding in found):
            loader.plan(connection, loaded)
    for kind, settings in model.declaration.sink.items():
        where = model.at(("sink", kind))
        with _as_finding(result, title, "sink"):
            config.connection(kind, sinks.find(kind, where=where).Connection)
            if result.loaded and result.loaded[-1].model is model:
                for problem in sinks.check(kind, settings, result.loaded[-1].compiled.fields, where=where):
                    result.findings[title].append(_sink_finding("sink", model, kind, problem))


def _sink_finding(code: str, model: Model, kind: str, problem: sinks.Problem) -> Finding:
    path = ("sink", kind, *problem.block)
    if problem.field and not problem.block:
        path = place_of(model, problem.field)
    severity: Severity = "error" if problem.certain else "note"
    return Finding(severity, code, f"{model.at(path)}: {kind}", problem.what, problem.why, problem.hint)


def _try_sinks(config: Config, result: Survey) -> None:
    """Ask the servers to take each read model whose block is right, where a server can be asked."""
    for loaded in result.loaded:
        found = result.findings[f"Read model {loaded.name}"]
        for kind, settings in loaded.model.declaration.sink.items():
            if result.findings.get(f"Sink {kind}") or any(finding.code == "sink" for finding in found):
                continue
            module, where = sinks.find(kind), loaded.model.at(("sink", kind))
            block = sinks.parse(module.Settings, settings, where=where)
            try:
                problems = module.trial(config.connection(kind, module.Connection), block, loaded.compiled)
            except SyncerError as error:
                found.append(Finding("warning", "no-answer", error.where, error.what, error.why, error.hint))
                continue
            found += [_sink_finding("sink-refuses", loaded.model, kind, problem) for problem in problems]


def _targets(models: Sequence[Model], result: Survey) -> None:
    """Two read models that write to one place would overwrite each other."""
    owners: dict[tuple[str, str], Model] = {}
    for model in models:
        for kind, settings in model.declaration.sink.items():
            try:
                target = sinks.target_of(kind, settings)
            except Fatal:  # of the block: it is reported with its read model
                continue
            owner = owners.setdefault((kind, target), model) if target else model
            if owner is not model:
                where = model.at(("sink", kind))
                what = f"{kind} {target} is the target of the read model {owner.name}, too"
                fix = sinks.find(kind).TARGET_HINT
                found = Finding("error", "same-target", where, what, "they would overwrite each other", fix)
                result.findings[f"Read model {model.name}"].append(found)


def _source(connection: psycopg.Connection[Any], definition: Definition, result: Survey) -> None:
    settings = definition.config
    publication, slot = settings.get("publication.name", ""), settings.get("slot.name", "")
    result.facts = read_facts(connection, result.tables, publication=publication, slot=slot)
    tables = result.tables - result.unfit.keys()
    found = check_source(result.facts, tables, connector_role=settings.get("database.user", ""))
    result.findings["PostgreSQL"] = found


def _connector(config: Config, definition: Definition, result: Survey) -> None:
    found = result.findings["Connector"]
    found += _judge(config, definition.config, result, definition.path)
    database = definition.config.get("database.dbname", "")
    if result.facts and database != result.facts.database:
        found.append(
            Finding(
                "error",
                "connector-database",
                f"{definition.path}: database.dbname",
                f"is {database}, but postgres.dsn is of database {result.facts.database}",
                "changes have to come from where documents are rendered",
            )
        )


def _judge(config: Config, settings: Any, result: Survey, where: str) -> list[Finding]:
    needed: dict[TableName, frozenset[str]] = {}
    for one in result.loaded:
        for table, columns in needed_columns(one.compiled, one.catalog).items():
            needed[table] = needed.get(table, frozenset()) | columns
    publication = result.definition.config.get("publication.name", "") if result.definition else ""
    prefix = config.kafka.topic_prefix
    return check_connector(
        settings, result.tables, topic_prefix=prefix, publication=publication, needed=needed, where=where
    )


def _not_there(where: str, registered: Collection[str], *, was_there: bool) -> Finding:
    fix = "syncer connectors apply"
    if registered and not was_there:
        why = f"no change reaches {', '.join(registered)}"
        return Finding("error", "not-applied", where, "it is not there yet", why, fix)
    if not registered:
        return Finding("warning", "not-applied", where, "it is not there yet", fix=fix)
    why = f"no change reaches {', '.join(registered)}, and its slot holds back ever more log"
    return Finding("error", "not-applied", where, "it is not there any more", why, fix)


def _plugin(config: Config, version: str, where: str, result: Survey) -> Iterator[Finding]:
    """Whether the connector's plug-in loses rows when it resumes, and whether that would be detected."""
    yield from check_version(version, where)
    if facts := result.facts:
        policy = config.source.repair_after_resume
        yield from check_sight(facts.sees_sessions, facts.role, version, policy)


def _live(config: Config, definition: Definition, result: Survey, kafka: servers.Kafka) -> None:
    """The connector as Kafka Connect has it. That it is away, or the connector not there yet, is no error;
    but once read models are registered, a connector was there."""
    found = result.findings.setdefault("Kafka Connect", [])
    client, where = connect(config), f"connector {definition.name}"
    try:
        found += _plugin(config, client.plugin_version(POSTGRES_CONNECTOR), client.url, result)
        settings = client.config(definition.name)
        if settings is None:
            was_there = kafka.streamed or bool(result.facts and result.facts.slot)
            found.append(_not_there(where, kafka.registered, was_there=was_there))
            return
        found += [f for f in _judge(config, settings, result, where) if f.severity == "error"]
        status = client.status(definition.name)
        slot: Slot | NoAnswer | None = result.facts.slot if result.facts else "unknown"
        name = definition.config.get("slot.name", "")
        # A slot whose log is gone is told with the server already.
        told = {finding.code for finding in result.all("error")}
        found += [f for f in check_running(definition.name, status, name, slot) if f.code not in told]
        if client.plan(definition).changes:
            what = f"it differs from {definition.path}"
            found.append(Finding("warning", "differs", where, what, fix="syncer connectors apply"))
    except SyncerError as error:
        found.append(Finding("warning", "no-answer", error.where, error.what, error.why, error.hint))
    finally:
        client.close()
