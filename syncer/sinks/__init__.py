"""The registry of sinks: finds the package of a kind, checks a read model's block and builds the sink.

A sink is a package with the attributes of `SinkPackage`. It is a folder here, or a package of another distribution
(`config/installed_sinks.py`). Nothing else has to be edited to add one. `docs/writing-a-sink.md` shows how.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol, TypeVar, cast, get_args, runtime_checkable

from pydantic import BaseModel, ValidationError

from syncer.config.installed_sinks import SinkOrigin, sink_origins
from syncer.declaration.compile import Compiled, Field
from syncer.declaration.names import near
from syncer.declaration.wrong_values import requirement
from syncer.errors import Fatal, SyncerError
from syncer.ports import DocumentTopic, PublishedWatermark, Sink
from syncer.sinks.problem import Limit
from syncer.sinks.problem import Problem as Problem

_Model = TypeVar("_Model", bound=BaseModel)


class SinkClass(Protocol):
    """The constructor of a sink. It does not connect: `Sink.prepare` does."""

    def __call__(self, settings: Any, connection: Any, *, model: Compiled, epoch: int, generation: int) -> Sink: ...


class SinkPackage(Protocol):
    """The interface of a sink's package. `settings` is a `Settings`, `connection` is a `Connection`."""

    Settings: type[BaseModel]
    """The block of the sink in a read model: `sink: {KIND: …}`."""
    Connection: type[BaseModel]
    """The section of the sink in `config/syncer.yaml`."""
    SINK: SinkClass
    TARGET_HINT: str
    """The advice when the target of a block already belongs to another read model."""

    def target(self, settings: Any) -> str:
        """Returns the name of the place that the block writes to, such as an index. Does not connect.

        Two read models with the same target would overwrite each other, so `syncer check` refuses them. Empty:
        each read model has a place of its own."""
        ...

    def derived(self, settings: Any, fields: Sequence[Field]) -> dict[str, Any]:
        """Returns keys of the block with the values that the sink derives from these fields. Does not connect.

        `syncer explain` prints them over the declared ones."""
        ...

    def validate(self, settings: Any, fields: Sequence[Field]) -> list[Problem]:
        """Returns the mistakes of a block for documents with these fields. Does not connect."""
        ...

    def preflight(self, connection: Any, settings: Sequence[Any]) -> list[SyncerError]:
        """Returns the reasons why the server cannot be used with these blocks, such as missing privileges.

        Blocks. Changes nothing on the server."""
        ...

    def trial(self, connection: Any, settings: Any, model: Compiled) -> list[Problem]:
        """Returns what the server would certainly refuse of a read model with this block.

        Blocks. It may create something on the server and removes it before it returns. Raises Retry or Fatal when
        the server does not answer."""
        ...

    def readers_elsewhere(self, connection: Any, settings: Any, generation: int) -> SyncerError | None:
        """Returns an error if applications read another generation than this one, with the command to fix it.

        Blocks. Returns None if they read this generation, or if it was never created. Raises Retry or Fatal when
        the server does not answer."""
        ...


@runtime_checkable
class PublishingPackage(Protocol):
    """The optional part of a sink's package, for sinks that are a `ports.PublishingSink`."""

    def published(self, connection: Any, settings: Any, generation: int) -> PublishedWatermark | None:
        """Returns the watermark of a generation that applications find, as `PublishingSink.published` does.

        Needs no compiled read model."""
        ...

    def publishing_problems(self, connection: Any, settings: Sequence[Any]) -> list[Problem]:
        """Returns what prevents these blocks from publishing watermarks, such as missing privileges.

        Blocks. Leaves nothing behind on the server. Raises Retry or Fatal when the server does not answer."""
        ...


INTERFACE = (
    *("Settings", "Connection", "SINK", "TARGET_HINT"),
    *("target", "derived", "validate", "preflight", "trial", "readers_elsewhere"),
)
"""The attributes of `SinkPackage`."""


@runtime_checkable
class FollowedPackage(Protocol):
    """A further function, for a sink whose documents can be followed. No sink needs it."""

    def documents(self, connection: Any, settings: Any, max_age: float) -> DocumentTopic:
        """Returns the documents of a block for readers. Does not connect.

        max_age: no process writes a document this many seconds after its snapshot.
        """
        ...


@runtime_checkable
class OverlappingPackage(Protocol):
    """A further function, for a sink whose blocks can write to the same place although their targets differ."""

    def overlap(self, settings: Any, other: Any) -> Problem | None:
        """Returns why two read models cannot have these blocks. Does not connect."""
        ...


@runtime_checkable
class LimitingPackage(Protocol):
    """A further function, for a sink that rejects some numbers."""

    def limits(self, settings: Any) -> list[Limit]:
        """Returns the limits of the fields. `syncer check` compares them with the numbers in PostgreSQL. No I/O."""
        ...


def find(kind: str, *, where: str = "") -> SinkPackage:
    """Returns the package of a kind of sink.

    where: the file and line that errors name. Raises Fatal with the nearest name if no such sink is installed, and
    with the distribution's name if its package is missing or incomplete.
    """
    known = sink_origins()
    if kind not in known:
        meant = near(kind, known)
        hint = f"did you mean {meant}?" if meant else f"one of: {', '.join(known)}"
        raise Fatal(f"there is no sink called {kind!r}", where=where, hint=hint)
    return cast(SinkPackage, _load(kind, known[kind], where))


def _load(kind: str, origin: SinkOrigin, where: str) -> ModuleType:
    if not origin.distribution:
        return importlib.import_module(origin.module)
    name = origin.distribution.partition(" ")[0]
    try:
        package = importlib.import_module(origin.module)
    except ImportError as error:
        raise Fatal(
            f"the sink {kind!r} of the distribution {origin.distribution} cannot be imported",
            where=where,
            why=f"{origin.module}: {error}",
            hint=f"pip install --force-reinstall {name}, or: pip uninstall {name}",
        ) from error
    if missing := [attribute for attribute in INTERFACE if not hasattr(package, attribute)]:
        raise Fatal(
            f"the sink {kind!r} of the distribution {origin.distribution} does not fit this version of the syncer",
            where=where,
            why=f"{origin.module} lacks {', '.join(missing)}",
            hint=f"pip install --upgrade {name}; its authors find the interface in docs/writing-a-sink.md",
        )
    return package


def parse(schema: type[_Model], given: Mapping[str, Any] | BaseModel, *, where: str) -> _Model:
    """Returns a block of YAML as an instance of `schema`. Raises Fatal with `where` and the first wrong field."""
    if isinstance(given, schema):
        return given
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        # An unknown key often explains the other errors, for example a required key that is missing.
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        place, hint, what = first["loc"], "", requirement(first)
        if first["type"] == "extra_forbidden":
            *above, name = first["loc"]
            known = _schema_at(schema, above).model_fields
            place, what = tuple(above), f"unknown key {str(name)!r}"
            meant = near(str(name), known)
            hint = f"did you mean {meant}?" if meant else f"one of: {', '.join(known)}"
        elif first["type"] == "missing":
            place, what = place[:-1], f"the key {str(first['loc'][-1])!r} is missing"
        field = ".".join(map(str, place))
        raise Fatal(f"{field}: {what}" if field else what, where=where, hint=hint) from None


def _schema_at(schema: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Returns the schema of the block at a path below `schema`."""
    for name in path:
        if field := schema.model_fields.get(str(name)):
            todo = [field.annotation]
            for one in todo:
                todo += get_args(one)
            schema = next((one for one in todo if isinstance(one, type) and issubclass(one, BaseModel)), schema)
    return schema


def target_of(kind: str, settings: Mapping[str, Any], *, where: str = "") -> str:
    """Returns the target of a read model's block (`SinkPackage.target`). Raises Fatal as `check` does."""
    package = find(kind, where=where)
    return package.target(parse(package.Settings, settings, where=_place(kind, where)))


def overlap(kind: str, settings: Mapping[str, Any], other: Mapping[str, Any]) -> Problem | None:
    """Returns why two read models cannot have these blocks of one kind. Raises Fatal as `check` does."""
    package = find(kind)
    if not isinstance(package, OverlappingPackage):
        return None
    return package.overlap(*(parse(package.Settings, block, where=kind) for block in (settings, other)))


def limits(kind: str, settings: Mapping[str, Any]) -> list[Limit]:
    """Returns the limits of fields in a read model's block. Raises Fatal as `check` does."""
    package = find(kind)
    return package.limits(parse(package.Settings, settings, where=kind)) if isinstance(package, LimitingPackage) else []


def derived(kind: str, settings: Mapping[str, Any], fields: Sequence[Field], *, where: str = "") -> dict[str, Any]:
    """Returns what the sink derives for a read model's block (`SinkPackage.derived`). Raises Fatal as `check` does."""
    package = find(kind, where=where)
    return package.derived(parse(package.Settings, settings, where=_place(kind, where)), fields)


def check(
    kind: str, settings: Mapping[str, Any], fields: Sequence[Field], *, where: str = "", partials: bool = False
) -> list[Problem]:
    """Returns the mistakes of a read model's block for documents with these fields.

    partials: whether the sink has to store the partials of documents.
    Raises Fatal when the block does not match the sink's `Settings`.
    """
    package = find(kind, where=where)
    found = package.validate(parse(package.Settings, settings, where=_place(kind, where)), fields)
    return [*found, *(_no_partials(kind, package) if partials else ())]


def _no_partials(kind: str, package: SinkPackage) -> list[Problem]:
    """Returns the mistake that a sink cannot store partials."""
    if all(hasattr(package.SINK, name) for name in ("write_partials", "read_partials", "partial_ids")):
        return []
    what = f"the sink {kind} cannot store the partials of documents"
    hint = "use the sink elasticsearch, postgres or redis, or remove `partials` from the relation"
    return [Problem(what, "documents with `partials` are combined from hidden documents in the sink", hint)]


def build(
    kind: str,
    settings: Mapping[str, Any],
    *,
    model: Compiled,
    connection: Mapping[str, Any] | BaseModel,
    epoch: int = 1,
    generation: int = 1,
    built: bool = False,
    where: str = "",
) -> Sink:
    """Returns the sink of a read model's block, not yet connected. `Sink.prepare` connects.

    settings: the block under `sink: {KIND: …}`.
    connection: the section of this kind in the configuration.
    built: whether the target was built before. Then the block is not validated again: it fitted once, and
        `Sink.outgrown` reports if it no longer does.
    where: the file and line that errors name.

    Raises Fatal for the first mistake in either block.
    """
    package = find(kind, where=where)
    parsed = parse(package.Settings, settings, where=_place(kind, where))
    found = _no_partials(kind, package) if model.partials else []
    found += [] if built else package.validate(parsed, model.fields)
    if found:
        others = "; ".join(problem.what for problem in found[1:])
        raise Fatal(found[0].what, where=_place(kind, where), why=found[0].why or others, hint=found[0].hint)
    link = parse(package.Connection, connection, where=f"configuration: {kind}")
    return package.SINK(parsed, link, model=model, epoch=epoch, generation=generation)


def _place(kind: str, where: str) -> str:
    return f"{where}: {kind}" if where else kind
