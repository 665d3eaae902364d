"""From the configuration to read models that are ready to run: declaration, catalog, compiled.

What every command and the daemon begin with. `declared` needs no server; the rest asks PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
from syncer.ports import Sink
from syncer.postgres import catalog as rows_catalog
from syncer.postgres import validate_sql as rows_plan
from syncer.postgres.fingerprint import Fingerprint, altered
from syncer.postgres.session import classify_error, connect, standby


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A read model, the tables it uses as they are now, and what comes of both."""

    model: Model
    compiled: Compiled
    catalog: Catalog
    fingerprint: Fingerprint
    """Of the tables as the catalog has them: another one means to look again."""
    publication: str = ""
    """The connector's, if its definition is known."""

    @property
    def name(self) -> str:
        return self.model.name


def declared(config: Config, names: Collection[str] = ()) -> list[Model]:
    """The read models of the folder, all or the named ones.

    Raises Fatal for a mistake in any of their files, for a name that is none, and when there are none.
    """
    models, errors = load_valid(config, names)
    if errors:
        raise together(errors)
    return models


def load_valid(config: Config, names: Collection[str] = ()) -> tuple[list[Model], list[Fatal]]:
    """As `declared`, but what is wrong with some files is told beside the others: one read model's mistake
    stops no other. Raises Unknown for a name that is none of the readable ones, Fatal when none is
    readable."""
    found, errors = declaration.load_all_valid(config.models, why=config.why_there("models"))
    if not found and errors:
        raise together(errors)
    if not found:
        raise Fatal("there are no read models", where=str(config.models), hint="see models in the configuration")
    known = {model.name: model for model in found}
    for name in names:
        if name not in known:
            if errors:  # it may be one of these
                raise together(errors)
            hint = nearest(name, known)
            raise Unknown(f"there is no read model called {name}", where=str(config.models), hint=hint)
    return [known[name] for name in dict.fromkeys(names)] if names else found, errors


@contextmanager
def reading(config: Config) -> Iterator[psycopg.Connection[Any]]:
    """A pinned, read-only session, closed at the end; psycopg's errors in it become ours."""
    connection = connect(config.postgres.arguments(), statement_timeout=config.postgres.statement_timeout)
    try:
        yield connection
    except psycopg.Error as error:
        raise classify_error(error, "cannot read the catalog") from error
    finally:
        connection.close()


def load_model(config: Config, model: Model) -> LoadedModel:
    """Raises Retry when PostgreSQL is away, Fatal when the declaration does not fit the tables."""
    with reading(config) as connection:
        return compiled(connection, model)


def compiled(connection: psycopg.Connection[Any], model: Model, publication: str = "") -> LoadedModel:
    """As `one`, over an open session. publication: whose membership belongs to the fingerprint."""
    catalog, print_ = rows_catalog.load_stable(connection, declaration.tables(model), publication=publication)
    return LoadedModel(model, compile(model, catalog), catalog, print_, publication)


def load_models(config: Config, names: Collection[str] = ()) -> list[LoadedModel]:
    """As `declared` and `one`, over one session."""
    found = declared(config, names)
    with reading(config) as connection:
        return [compiled(connection, model) for model in found]


def build_sinks(config: Config, loaded: LoadedModel, *, epoch: int, generation: int, built: bool = False) -> list[Sink]:
    """The read model's sinks, not yet connected. built: their targets were made once.

    Raises Fatal naming the line of what is wrong in a section of the configuration (whose secrets may be in
    files) or in the declaration."""
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


def misread(config: Config, model: Model, generation: int) -> dict[str, SyncerError | None]:
    """For each kind of sink of the read model: whether readers see something else than this generation.
    Raises Retry or Fatal when a server cannot tell."""
    found = {}
    for kind, settings in model.declaration.sink.items():
        where = model.at(("sink", kind))
        module = sinks.find(kind, where=where)
        block = sinks.parse(module.Settings, settings, where=where)
        found[kind] = module.misread(config.connection(kind, module.Connection), block, generation)
    return found


def load_checked(config: Config, model: Model) -> LoadedModel:
    """As `one`. Raises Fatal also for what would make documents wrong: the errors, not the warnings, of
    `syncer check`, and SQL that PostgreSQL will not plan."""
    with reading(config) as connection:
        loaded = compiled(connection, model, lookup.publication(config))
        row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
        if row and row[0]:
            raise standby(model.name)
        found = check_model(loaded.model.file, loaded.compiled, loaded.catalog)
        errors = [finding for finding in found if finding.severity == "error"]
        if errors:
            first = errors[0]
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            hint = f"syncer check {loaded.name}, which prints what to run"
            if any(finding.code.startswith("identity") for finding in errors):
                hint += "; then it goes on by itself, and renders all documents again"
                raise WeakIdentity(first.what + more, where=first.where, why=first.why, hint=hint)
            raise Fatal(first.what + more, where=first.where, why=first.why, hint=hint)
        plan(connection, loaded)
    return loaded


def revalidate(config: Config, loaded: LoadedModel) -> Fingerprint:
    """Of the tables as they are now, if what was compiled of others fits these just as well. Raises Retry if
    not, and what `ready` raises."""
    now = load_checked(config, loaded.model)
    if (now.compiled, now.publication) != (loaded.compiled, loaded.publication):
        raise altered(loaded.name)
    return now.fingerprint


def plan(connection: psycopg.Connection[Any], loaded: LoadedModel) -> None:
    """See `postgres/validate_sql.py`."""
    rows_plan.plan(connection, loaded.model, loaded.catalog, loaded.compiled)
