"""The checks of the Elasticsearch sink for `syncer check`, and its mapping for `syncer explain`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import orjson

from syncer.declaration.compile import Compiled, Field
from syncer.errors import Fatal, SyncerError
from syncer.sinks.elasticsearch import index, mapping, scratch_index
from syncer.sinks.elasticsearch.client import Http
from syncer.sinks.elasticsearch.settings import Connection, Settings
from syncer.sinks.problem import Problem

TARGET_HINT = index.OTHER_NAME


def target(settings: Settings) -> str:
    """Returns the alias that applications read."""
    return settings.index


def derived(settings: Settings, fields: Sequence[Field]) -> dict[str, Any]:
    """Returns the whole mapping: derived from the fields, with the declared one merged over it."""
    return {"mapping": mapping.mapping(settings.mapping, fields)}


def validate(settings: Settings, fields: Sequence[Field]) -> list[Problem]:
    """Reports mapped types that cannot hold a field's values, unknown fields, and settings that are reserved."""
    return mapping.problems(settings.mapping, fields) + index.setting_problems(settings.settings)


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    """Reports a server that is unreachable, and missing privileges. Without security every user has all."""
    where = f"Elasticsearch at {connection.url}"
    with contextlib.closing(connection.client()) as server:
        http = Http(server, where, "")
        try:
            missing = _missing_privileges(http, sorted({one.index for one in settings}))
        except SyncerError as error:
            return [error]
    if not missing:
        return []
    hint = "grant them by a role to the user elasticsearch.username, or to the key elasticsearch.api_key"
    return [Fatal("privileges are missing", where=where, why="; ".join(missing), hint=hint)]


def _missing_privileges(http: Http, aliases: Sequence[str]) -> list[str]:
    """https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-security-has-privileges"""
    names = [name for alias in aliases for name in (alias, f"{alias}-*")]
    wanted = {
        "cluster": ["monitor"],
        "index": [{"names": names, "privileges": ["manage", "read", "write"]}],
    }
    status, raw = http.ask("POST", "/_security/user/_has_privileges", wanted)
    if status in (401, 403):
        raise http.failed("cannot sign in", status, raw)
    if status != 200:  # security is disabled, so there is no such endpoint
        http.must("GET", "/_cluster/health?filter_path=status")
        return []
    found = orjson.loads(raw)
    missing = [f"{one} of the cluster" for one, has in found["cluster"].items() if not has]
    for name, given in found["index"].items():
        missing += [f"{one} of the index {name}" for one, has in given.items() if not has]
    return missing


def trial(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    """Reports a name that is taken, and what Elasticsearch refuses when it creates such an index.

    Creates a scratch index and deletes it.
    """
    with contextlib.closing(connection.client()) as server:
        http = Http(server, f"Elasticsearch at {connection.url}", "")
        for name, info in (http.get(f"/{settings.index}") or {}).items():
            if index.meta(info).get("model") != model.name:
                return [Problem(index.taken(settings.index, name), "", index.TAKEN_HINT, ("index",))]
        return scratch_index.problems(
            http,
            settings.model_dump(),
            settings.index_of(1),
            index.settings(settings.settings),
            mapping.mapping(settings.mapping, model.fields),
        )
