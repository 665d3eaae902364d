"""Checks Kafka and the servers of the sinks, for `syncer check`.

Nothing is created or written. An unreachable server is a finding like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from syncer import sinks
from syncer.checks import Finding
from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, SyncerError
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.loader import LoadedModel
from syncer.registry.records import BuiltSinks
from syncer.registry.state import StateSnapshot

_STATE_MAX_AGE = 60.0
"""Seconds. The state topic is read once for the whole check."""


class KafkaReport(NamedTuple):
    """Holds the findings about Kafka, and what its state topic says about read models and connector."""

    findings: list[Finding]
    registered: dict[str, int]
    """Read model → generation, for those that have run. Empty if Kafka is unreachable."""
    streamed: bool
    """Whether a daemon has seen the slot of the connector. If so, the connector existed."""


def check_kafka(config: Config, loaded: Sequence[LoadedModel]) -> KafkaReport:
    """Checks whether Kafka answers, and whether registered read models need a resync."""
    found: list[Finding] = []
    registered: dict[str, int] = {}
    streamed = False
    try:
        registry = open_registry(config)
        known = registry.state.load()
        streamed = bool(registry.stream(_STATE_MAX_AGE).slot)
        for one in loaded:
            if registration := known.registration(one.name):
                registered[one.name] = registration.generation
                try:
                    registry.check(one.compiled)
                    found += _outdated_mappings(config, one, known)
                except Fatal as error:
                    found.append(_finding(error, "resync"))
    except SyncerError as error:
        found.append(_finding(error, "kafka"))
    return KafkaReport(found, registered, streamed)


def _outdated_mappings(config: Config, one: LoadedModel, known: StateSnapshot) -> Iterator[Finding]:
    """Yields sinks that were built for other column types.

    Skips unreachable servers, because `check_sinks` reports them.
    """
    registered = known.registration(one.name)
    if not registered or not known.get(BuiltSinks.key(registered.id)):
        return
    built = loader.build_sinks(config, one, epoch=registered.epoch, generation=registered.generation, built=True)
    for sink in built:
        with suppress(SyncerError), closing(sink):
            for text in sink.outgrown():
                why = "documents that it rejects become dead letters; the others are written"
                yield Finding("error", "resync", sink.name, text, why, f"syncer resync {one.name}")


def check_sinks(
    config: Config, models: Sequence[Model], kinds: Collection[str] | None = None
) -> dict[str, list[Finding]]:
    """Returns heading → findings, for each kind of sink that the read models use, or for the given kinds.

    Skips sink blocks that cannot be parsed, because the check of the read model reports them.
    """
    result: dict[str, list[Finding]] = {}
    used = dict.fromkeys(kind for model in models for kind in model.declaration.sink)
    for kind in used if kinds is None else kinds:
        with suppress(Fatal):
            module = sinks.find(kind)
            connection = config.connection(kind, module.Connection)
            blocks = []
            for model in models:
                if kind in model.declaration.sink:
                    with suppress(Fatal):
                        blocks.append(sinks.parse(module.Settings, model.declaration.sink[kind], where=kind))
            errors = module.preflight(connection, blocks)
            result[f"Sink {kind}"] = [_finding(error, "sink-server") for error in errors]
    return result


def check_readers(config: Config, models: Sequence[Model], registered: Mapping[str, int]) -> dict[str, list[Finding]]:
    """Returns heading → findings for sinks whose readers use another generation than the one that is kept in sync.

    Skips unreachable servers, because `check_sinks` reports them.
    registered: read model → generation.
    """
    result: dict[str, list[Finding]] = {}
    for model in models:
        if model.name in registered:
            with suppress(SyncerError):
                for kind, error in loader.readers_elsewhere(config, model, registered[model.name]).items():
                    if error:
                        result.setdefault(f"Sink {kind}", []).append(_finding(error, "readers"))
    return result


def _finding(error: SyncerError, code: str) -> Finding:
    return Finding("error", code, error.where or "Kafka", error.what, error.why, error.hint)
