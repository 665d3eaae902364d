"""Checks Kafka and the servers of the sinks, for `syncer check`.

Nothing is created or written. An unreachable server is a finding like any other.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from syncer import sinks
from syncer.checks import Finding, OffsetTopic, check_flush, check_topics
from syncer.config.schema import Config
from syncer.connect.definition import Definition
from syncer.declaration.model import Model
from syncer.errors import Fatal, SyncerError
from syncer.events import TableName
from syncer.freshness.probe import offset_topic
from syncer.freshness.proof import read_offset
from syncer.kafka.names import topic_of
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.loader import LoadedModel
from syncer.registry.records import BuiltSinks
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot

_STATE_MAX_AGE = 60.0
"""Seconds. The state topic is read once for the whole check."""
_MEASURED = 300.0
"""Seconds before now, in which the commits of source offsets are measured."""


class KafkaReport(NamedTuple):
    """Holds the findings about Kafka, and what its state topic says about read models and connector."""

    findings: list[Finding]
    registered: dict[str, int]
    """Read model → generation, for those that have run. Empty if Kafka is unreachable."""
    streamed: bool
    """Whether a daemon has seen the slot of the connector. If so, the connector existed."""


def check_kafka(config: Config, loaded: Sequence[LoadedModel], definition: Definition | None = None) -> KafkaReport:
    """Checks whether Kafka answers, whether registered read models need a resync, and the connector's topics."""
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
        tables = {table for one in loaded for table in one.compiled.tables}
        found += _check_streams(registry, tables, definition)
    except SyncerError as error:
        found.append(_finding(error, "kafka"))
    return KafkaReport(found, registered, streamed)


def _check_streams(
    registry: Registry, tables: Collection[TableName], definition: Definition | None
) -> Iterator[Finding]:
    """Checks the topics of change events and of source offsets, and how fast offsets are committed."""
    changes = {}
    for table in sorted(tables):
        topic = topic_of(registry.config.kafka.topic_prefix, table)
        if (settings := registry.changes.settings(topic)) is not None:
            changes[topic] = settings
    if definition is None:
        yield from check_topics(changes, None)
        return
    topic = offset_topic(registry, definition)
    own = bool(definition.config.get("offsets.storage.topic"))
    settings = registry.changes.settings(topic)
    yield from check_topics(changes, OffsetTopic(topic, own, settings))
    if settings is not None:
        offsets = _times(registry, topic, definition.name)
        yield from check_flush(offsets, _times(registry, f"{registry.config.kafka.topic_prefix}.message"))


def _times(registry: Registry, topic: str, connector: str = "") -> list[int]:
    """Returns when Kafka got the last records of a topic, sorted, in Unix milliseconds.

    connector: counts only source offsets of this connector.
    """
    ends = registry.changes.ends([topic])
    since = registry.changes.ends([topic], at_ms=round((time.time() - _MEASURED) * 1000))
    start = {partition: offset for partition, offset in since.items() if 0 <= offset < ends[partition]}
    return sorted(
        moment
        for record, moment in registry.changes.between(start, {partition: ends[partition] for partition in start})
        if not connector or ((offset := read_offset(record.key, record.value)) and offset.connector == connector)
    )


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


def check_publishing(config: Config, models: Sequence[Model]) -> dict[str, list[Finding]]:
    """Returns heading → what prevents the sinks from publishing watermarks. Documents are right without them.

    Skips unreachable servers, because `check_sinks` reports them.
    """
    result: dict[str, list[Finding]] = {}
    if not config.freshness.publish_interval:
        return result
    for kind in dict.fromkeys(kind for model in models for kind in model.declaration.sink):
        with suppress(SyncerError):
            module = sinks.find(kind)
            if isinstance(module, sinks.PublishingPackage):
                used = [model.declaration.sink[kind] for model in models if kind in model.declaration.sink]
                blocks = [sinks.parse(module.Settings, one, where=kind) for one in used]
                connection = config.connection(kind, module.Connection)
                for one in module.publishing_problems(connection, blocks):
                    finding = Finding("warning", "watermark", f"sink {kind}", one.what, one.why, one.hint)
                    result.setdefault(f"Sink {kind}", []).append(finding)
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
