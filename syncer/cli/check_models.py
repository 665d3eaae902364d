"""Checks read models for `syncer check`: their tables in PostgreSQL, the blocks of their sinks, and their targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from syncer import sinks
from syncer.checks import Finding, check_model
from syncer.checks.finding import Severity
from syncer.checks.limits import check_limit, may_exceed
from syncer.checks.trees import check_trees
from syncer.cli.check_report import CheckReport
from syncer.config.schema import Config
from syncer.declaration.field_source import field_source
from syncer.declaration.model import Model, yaml_path_of
from syncer.errors import Fatal, SyncerError
from syncer.postgres.largest_value import read_largest
from syncer.postgres.mutable import read_mutable
from syncer.postgres.trees import read_trees
from syncer.registry import loader
from syncer.registry.loader import LoadedModel
from syncer.sinks.problem import Path


def check_declaration(config: Config, connection: psycopg.Connection[Any], model: Model, report: CheckReport) -> None:
    """Adds what is wrong with a read model and its tables, and with the blocks of its sinks. Asks only PostgreSQL."""
    title, sound = f"Read model {model.name}", False
    with report.as_finding(title, "declaration"):
        loaded = loader.compile_model(connection, model)
        report.loaded.append(loaded)
        role = connection.info.user
        mutable = read_mutable(connection, loaded.compiled)
        found = check_model(model.file, loaded.compiled, loaded.catalog, role=role, mutable=mutable)
        report.findings[title] += found
        if not any(finding.severity == "error" for finding in found):
            loader.plan(connection, loaded)
            report.findings[title] += check_trees(model.file, read_trees(connection, loaded.compiled))
            sound = True
    for kind, settings in model.declaration.sink.items():
        where = model.at(("sink", kind))
        with report.as_finding(title, "sink"):
            config.connection(kind, sinks.find(kind, where=where).Connection)
            if report.loaded and report.loaded[-1].model is model:
                compiled = report.loaded[-1].compiled
                has_partials = compiled.partials is not None
                problems = sinks.check(kind, settings, compiled.fields, where=where, partials=has_partials)
                report.findings[title] += [_sink_finding("sink", model, kind, problem) for problem in problems]
                if sound and not problems:
                    report.findings[title] += _large_numbers(connection, report.loaded[-1], kind, settings)


def _large_numbers(
    connection: psycopg.Connection[Any], loaded: LoadedModel, kind: str, settings: Mapping[str, Any]
) -> Iterator[Finding]:
    """Finds numbers in PostgreSQL that a sink rejects, as far as they are known without reading tables."""
    model = loaded.model
    for limit in sinks.limits(kind, settings):
        source = field_source(model, loaded.catalog, limit.field)
        if source and may_exceed(source) and (largest := read_largest(connection, source)):
            where = f"{model.at(('sink', kind, *limit.block))}: {kind}"
            yield from check_limit(where, limit.field, limit.highest, limit.why, source, largest)


def _sink_finding(code: str, model: Model, kind: str, problem: sinks.Problem) -> Finding:
    path = ("sink", kind, *problem.block)
    if problem.field and not problem.block:
        path = yaml_path_of(model, problem.field)
    severity: Severity = "error" if problem.certain else "note"
    return Finding(severity, code, f"{model.at(path)}: {kind}", problem.what, problem.why, problem.hint)


def try_sinks(config: Config, report: CheckReport) -> None:
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


def check_targets(models: Sequence[Model], report: CheckReport) -> None:
    """Adds an error for read models that write to the same index or keys. They would overwrite each other."""
    for number, model in enumerate(models):
        for kind, settings in model.declaration.sink.items():
            for owner in models[:number]:
                if kind not in owner.declaration.sink:
                    continue
                try:
                    found = _same_target(kind, settings, owner.declaration.sink[kind])
                except Fatal:  # of a block; it is reported with its read model
                    continue
                if found:
                    what, fix, block = found
                    why = "they would overwrite each other"
                    found_at = model.at(("sink", kind, *block))
                    finding = Finding("error", "same-target", found_at, f"read model {owner.name} {what}", why, fix)
                    report.findings[f"Read model {model.name}"].append(finding)
                    break


def _same_target(kind: str, settings: Any, other: Any) -> tuple[str, str, Path] | None:
    """Returns what the other read model does, the fix and the place in the block. None if both can write."""
    target = sinks.target_of(kind, settings)
    if target and target == sinks.target_of(kind, other):
        return f"also writes to {kind} {target}", sinks.find(kind).TARGET_HINT, ()
    problem = sinks.overlap(kind, settings, other)
    return (f"also writes to {kind}: {problem.what}", problem.hint, problem.block) if problem else None
