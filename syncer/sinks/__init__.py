"""The sinks, found by name: `elasticsearch` in a declaration means the module `syncer.sinks.elasticsearch.sink`.

A sink is one module that has `Settings` (its block in a read model), `Connection` (its block in
`config/syncer.yaml`), `problems` (what `check` says about a block), `obstacles` (what it says about the
server), `tried` (what the server says about a block), `misread` (whether readers see what is written) and
`SINK` (the class). Nothing else has to be edited to add one; the contract suite in `tests/contracts/` says
what it must do.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from pydantic import BaseModel, ValidationError

from syncer.config.sink_kinds import sink_modules
from syncer.declaration.compile import Compiled, Field
from syncer.declaration.names import near
from syncer.errors import Fatal, SyncerError
from syncer.ports import Sink
from syncer.sinks.problem import Problem as Problem

_Model = TypeVar("_Model", bound=BaseModel)


class SinkClass(Protocol):
    def __call__(self, settings: Any, connection: Any, *, model: Compiled, epoch: int, generation: int) -> Sink: ...


class SinkModule(Protocol):
    Settings: type[BaseModel]
    Connection: type[BaseModel]
    SINK: SinkClass

    def validate(self, settings: Any, fields: Sequence[Field]) -> list[Problem]: ...

    def preflight(self, connection: Any, settings: Sequence[Any]) -> list[SyncerError]:
        """Why nothing could be written to the server as these blocks say. It is asked, and not changed."""
        ...

    def misread(self, connection: Any, settings: Any, generation: int) -> SyncerError | None:
        """Whether readers see something else than this generation, with the command that corrects it; None if
        they do not, or if it was never made. Raises Retry or Fatal when the server cannot tell."""
        ...

    def tried(self, connection: Any, settings: Any, model: Compiled) -> list[Problem]:
        """What the server is certain to refuse of a read model with this block. It may be asked to make
        something that is removed before this returns. Raises SyncerError when it does not answer."""
        ...


def find(kind: str, *, where: str = "") -> SinkModule:
    """Returns the package of a kind of sink. Raises Fatal with the nearest name if no such sink is installed."""
    known = sink_modules()
    if kind not in known:
        meant = near(kind, known)
        hint = f"did you mean {meant}?" if meant else f"one of: {', '.join(known)}"
        raise Fatal(f"there is no sink called {kind!r}", where=where, hint=hint)
    return cast(SinkModule, importlib.import_module(known[kind]))


def parse(schema: type[_Model], given: Mapping[str, Any] | BaseModel, *, where: str) -> _Model:
    """Validate a block of YAML. Raises Fatal naming `where` and the first wrong field."""
    if isinstance(given, schema):
        return given
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])  # explains the rest
        field = ".".join(map(str, first["loc"])) or "(block)"
        hint = ""
        if first["type"] == "extra_forbidden":
            meant = near(str(first["loc"][-1]), schema.model_fields)
            hint = f"did you mean {meant}?" if meant else f"one of: {', '.join(schema.model_fields)}"
        message = first["msg"].removeprefix("Value error, ")
        raise Fatal(f"{field}: {message}", where=where, hint=hint) from None


def check(kind: str, settings: Mapping[str, Any], fields: Sequence[Field], *, where: str = "") -> list[Problem]:
    """What is wrong with a declaration's block for documents of these fields; empty when nothing is.

    Raises Fatal when the block itself cannot be read.
    """
    module = find(kind, where=where)
    place = f"{where}: {kind}" if where else kind
    return module.validate(parse(module.Settings, settings, where=place), fields)


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
    """The sink that a declaration's block describes, not yet connected: `prepare()` does that.

    settings: the block under `sink: {<kind>: …}`. connection: the block of this kind in the configuration.
    built: what was fit for the documents when it was built is reported by the sink if it no longer is
    (`Sink.outgrown`). where: the file (and line) that errors name. Raises Fatal for anything wrong in either.
    """
    place = f"{where}: {kind}" if where else kind
    module = find(kind, where=where)
    parsed = parse(module.Settings, settings, where=place)
    found = [] if built else module.validate(parsed, model.fields)
    if found:
        others = "; ".join(problem.what for problem in found[1:])
        raise Fatal(found[0].what, where=place, why=found[0].why or others, hint=found[0].hint)
    link = parse(module.Connection, connection, where=f"configuration: {kind}")
    return module.SINK(parsed, link, model=model, epoch=epoch, generation=generation)
