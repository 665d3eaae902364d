"""Asks Kafka and the servers behind the sinks whether the read models could be kept in step there.

For `syncer check`: nothing is made or written, and a server that is away is a finding like any other.
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

_ONE_READ = 60.0  # seconds: one reading of the state serves the whole check


class Kafka(NamedTuple):
    findings: list[Finding]
    registered: dict[str, int]
    """The read models that began, and their generations, as far as Kafka told."""
    streamed: bool
    """A daemon has seen the connector's slot, so the connector was there once."""


def kafka(config: Config, loaded: Sequence[LoadedModel]) -> Kafka:
    """Whether Kafka answers, and whether a read model that is registered there has to be built anew."""
    found: list[Finding] = []
    registered: dict[str, int] = {}
    streamed = False
    try:
        registry = open_registry(config)
        known = registry.state.load()
        streamed = bool(registry.stream(_ONE_READ).slot)
        for one in loaded:
            if registration := known.registration(one.name):
                registered[one.name] = registration.generation
                try:
                    registry.check(one.compiled)
                    found += _outgrown(config, one, known)
                except Fatal as error:
                    found.append(_finding(error, "resync"))
    except SyncerError as error:
        found.append(_finding(error, "kafka"))
    return Kafka(found, registered, streamed)


def _outgrown(config: Config, one: LoadedModel, known: StateSnapshot) -> Iterator[Finding]:
    """Sinks that were built for other types of columns. A server that is away is told with its sink."""
    registered = known.registration(one.name)
    if not registered or not known.get(BuiltSinks.key(registered.id)):
        return
    built = loader.build_sinks(config, one, epoch=registered.epoch, generation=registered.generation, built=True)
    for sink in built:
        with suppress(SyncerError), closing(sink):
            for text in sink.outgrown():
                why = "documents that it refuses are dead letters; the others are written"
                yield Finding("error", "resync", sink.name, text, why, f"syncer resync {one.name}")


def sinks_of(config: Config, models: Sequence[Model], kinds: Collection[str] | None = None) -> dict[str, list[Finding]]:
    """Heading → findings, for each kind of sink that the read models use, or for these kinds. A block that
    cannot be read is left out: that is told with its read model."""
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


def readers(config: Config, models: Sequence[Model], registered: Mapping[str, int]) -> dict[str, list[Finding]]:
    """Heading → findings: readers who see another generation than the one that is kept in sync. A server that
    does not answer is told elsewhere. registered: read model → generation."""
    result: dict[str, list[Finding]] = {}
    for model in models:
        if model.name in registered:
            with suppress(SyncerError):
                for kind, error in loader.misread(config, model, registered[model.name]).items():
                    if error:
                        result.setdefault(f"Sink {kind}", []).append(_finding(error, "readers"))
    return result


def _finding(error: SyncerError, code: str) -> Finding:
    return Finding("error", code, error.where or "Kafka", error.what, error.why, error.hint)
