"""Loads read models: from the configuration to a declaration that is compiled against the catalog.

Every command and the daemon begin here. `load_declared` and `load_valid` need no server. The other functions connect to
PostgreSQL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from syncer import sinks
from syncer.checks import check_model
from syncer.config.schema import Config
from syncer.connect import lookup
from syncer.declaration import model as declaration
from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.declaration.names import nearest
from syncer.errors import Fatal, SyncerError, Unknown, WeakIdentity
from syncer.ports import DocumentTopic, PublishedWatermark, Sink
from syncer.postgres import catalog as rows_catalog
from syncer.postgres import validate_sql as rows_plan
from syncer.postgres.fingerprint import Fingerprint, altered
from syncer.postgres.session import classify_error, connect, standby

_COMPILING = threading.Lock()
"""Held while a read model is compiled, and never while a server is called.

Compiling is pure Python. If all threads compiled concurrently, each would end only when all have compiled. In turn,
each thread can check for a stop before it compiles.
"""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A read model, compiled against the tables as they are now."""

    model: Model
    compiled: Compiled
    catalog: Catalog
    fingerprint: Fingerprint
    """Of the tables in the catalog. If it changes, `revalidate` has to run."""
    publication: str = ""
    """Of the connector. Empty if its definition is not known."""

    @property
    def name(self) -> str:
        return self.model.name


def load_declared(config: Config, names: Collection[str] = ()) -> list[Model]:
    """Returns the read models in the configured folder, all or the named ones.

    Raises Fatal if one of the files has a mistake, if a name is unknown, or if there are no read models.
    """
    models, errors = load_valid(config, names)
    if errors:
        raise together(errors)
    return models


def load_valid(config: Config, names: Collection[str] = ()) -> tuple[list[Model], list[Fatal]]:
    """As `load_declared`, but returns the mistakes in some files alongside the valid read models.

    Raises Unknown if a name belongs to no valid file, Fatal if no file is valid.
    """
    found, errors = declaration.load_all_valid(config.models, why=config.explain_folder("models"))
    if not found and errors:
        raise together(errors)
    if not found:
        raise Fatal("there are no read models", where=str(config.models), hint="see `models` in the configuration")
    known = {model.name: model for model in found}
    for name in names:
        if name not in known:
            if errors:  # one of these files may declare it
                raise together(errors)
            hint = nearest(name, known)
            raise Unknown(f"there is no read model called {name}", where=str(config.models), hint=hint)
    return [known[name] for name in dict.fromkeys(names)] if names else found, errors


@contextmanager
def catalog_session(config: Config) -> Iterator[psycopg.Connection[Any]]:
    """Opens a read-only session with a fixed search path and closes it. Turns psycopg's errors into Retry or Fatal."""
    connection = connect(config.postgres.arguments(), statement_timeout=config.postgres.statement_timeout)
    try:
        yield connection
    except psycopg.Error as error:
        raise classify_error(error, "cannot read the catalog") from error
    finally:
        connection.close()


def ping(config: Config) -> None:
    """Raises Retry if PostgreSQL is unreachable, Fatal if it refuses the login."""
    with catalog_session(config) as connection:
        connection.execute("SELECT 1")


def load_model(config: Config, model: Model) -> LoadedModel:
    """Compiles one read model. Raises Retry if PostgreSQL is unreachable, Fatal if the tables do not fit."""
    with catalog_session(config) as connection:
        return compile_model(connection, model)


def compile_model(
    connection: psycopg.Connection[Any],
    model: Model,
    publication: str = "",
    *,
    check: Callable[[], None] = lambda: None,
) -> LoadedModel:
    """As `load_model`, in an open session.

    publication: the fingerprint includes its tables.
    check: see `load_checked`.
    """
    catalog, print_ = rows_catalog.load_stable(connection, declaration.tables(model), publication=publication)
    with _COMPILING:
        check()
        compiled = compile(model, catalog)
    return LoadedModel(model, compiled, catalog, print_, publication)


def load_models(config: Config, names: Collection[str] = ()) -> list[LoadedModel]:
    """As `load_declared` and `load_model`, in one session."""
    found = load_declared(config, names)
    with catalog_session(config) as connection:
        return [compile_model(connection, model) for model in found]


def build_sinks(config: Config, loaded: LoadedModel, *, epoch: int, generation: int, built: bool = False) -> list[Sink]:
    """Returns the read model's sinks, not yet connected.

    built: their targets were built before.
    Raises Fatal if a section of the configuration or the declaration is wrong. The error names the line.
    """
    found = []
    for kind, settings in loaded.model.declaration.sink.items():
        where = loaded.model.at(("sink", kind))
        connection = config.connection(kind, sinks.find(kind, where=where).Connection)
        found.append(
            sinks.build(
                kind,
                settings,
                model=loaded.compiled,
                connection=connection,
                epoch=epoch,
                generation=generation,
                built=built,
                where=where,
            )
        )
    return found


def document_topic(config: Config, model: Model) -> DocumentTopic | None:
    """Returns the documents of a read model for readers that follow them; None if no sink offers that.

    Does not connect. Raises Fatal if a section of the configuration or the declaration is wrong.
    """
    for kind, settings in model.declaration.sink.items():
        where = model.at(("sink", kind))
        module = sinks.find(kind, where=where)
        if isinstance(module, sinks.FollowedPackage):
            block = sinks.parse(module.Settings, settings, where=where)
            return module.documents(config.connection(kind, module.Connection), block, config.pipeline.max_age)
    return None


def readers_elsewhere(config: Config, model: Model, generation: int) -> dict[str, SyncerError | None]:
    """Returns, for each kind of sink, the error that readers see another generation than this one, or None.

    Raises Retry or Fatal if a server cannot answer that.
    """
    found = {}
    for kind, settings in model.declaration.sink.items():
        where = model.at(("sink", kind))
        module = sinks.find(kind, where=where)
        block = sinks.parse(module.Settings, settings, where=where)
        found[kind] = module.readers_elsewhere(config.connection(kind, module.Connection), block, generation)
    return found


def published(config: Config, model: Model, generation: int) -> PublishedWatermark | None:
    """Returns the lowest watermark that applications find in the sinks of a read model.

    Returns None if one of them has none, and if no sink can have one. Raises Retry or Fatal if a server does not
    answer.
    """
    found: list[PublishedWatermark | None] = []
    for kind, settings in model.declaration.sink.items():
        where = model.at(("sink", kind))
        module = sinks.find(kind, where=where)
        if isinstance(module, sinks.PublishingPackage):
            block = sinks.parse(module.Settings, settings, where=where)
            found.append(module.published(config.connection(kind, module.Connection), block, generation))
    known = [one for one in found if one is not None and one.model == model.name]
    return min(known, key=lambda one: one.version) if known and len(known) == len(found) else None


def load_checked(config: Config, model: Model, *, check: Callable[[], None] = lambda: None) -> LoadedModel:
    """As `load_model`. Raises Fatal also for everything that would make documents wrong.

    These are the errors of `syncer check`, without the warnings, and SQL that PostgreSQL cannot plan.
    check: called between the steps. An error that it raises ends the load.
    """
    with catalog_session(config) as connection:
        check()
        loaded = compile_model(connection, model, lookup.publication(config), check=check)
        check()
        row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
        if row and row[0]:
            raise standby(model.name)
        found = check_model(loaded.model.file, loaded.compiled, loaded.catalog)
        errors = [finding for finding in found if finding.severity == "error"]
        if errors:
            first = errors[0]
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            hint = f"syncer check {loaded.name}, which prints the commands to run"
            if any(finding.code.startswith("identity") for finding in errors):
                hint += "; then the read model continues and renders all documents again"
                raise WeakIdentity(first.what + more, where=first.where, why=first.why, hint=hint)
            raise Fatal(first.what + more, where=first.where, why=first.why, hint=hint)
        plan(connection, loaded)
    return loaded


def revalidate(config: Config, loaded: LoadedModel) -> Fingerprint:
    """Returns the fingerprint of the tables as they are now, if the compiled read model still fits them.

    Raises Retry if it does not, and the errors of `load_checked`.
    """
    now = load_checked(config, loaded.model)
    if (now.compiled, now.publication) != (loaded.compiled, loaded.publication):
        raise altered(loaded.name)
    return now.fingerprint


def plan(connection: psycopg.Connection[Any], loaded: LoadedModel) -> None:
    """Has PostgreSQL plan the SQL of the read model; see `postgres/validate_sql.py`."""
    rows_plan.plan(connection, loaded.model, loaded.catalog, loaded.compiled)
