"""Detects that applications read another index than the one that is kept in sync."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import orjson

from syncer.errors import Fatal, SyncerError
from syncer.sinks.elasticsearch.client import Http
from syncer.sinks.elasticsearch.settings import Connection, Settings


def readers_elsewhere(connection: Connection, settings: Settings, generation: int) -> SyncerError | None:
    """Returns an error if the alias that applications read does not point to this generation's index alone.

    Somebody moved it to an older index, removed it, or added it to two indexes. A later generation is in order: a
    resync moves the alias before that generation is registered.
    """
    alias, index = settings.index, settings.index_of(generation)
    with contextlib.closing(connection.client()) as server:
        http = Http(server, f"elasticsearch:{alias}", "")
        read = sorted(http.get(f"/_alias/{alias}") or {})
        if read == [index] or _is_later(settings, read, index) or http.get(f"/{index}") is None:
            return None
    actions = [{"remove": {"index": name, "alias": alias}} for name in read if name != index]
    body = orjson.dumps({"actions": [*actions, {"add": {"index": index, "alias": alias}}]}).decode()
    url = connection.url.partition(",")[0].strip().rstrip("/")
    command = f"curl{curl_options(connection)} -X POST {url}/_aliases"
    return Fatal(
        f"readers of {alias} see {' and '.join(read) or 'no index'}, but the syncer writes to {index}",
        where=f"elasticsearch:{alias}",
        why="the alias was moved or removed by hand",
        hint=f"{command} -H 'Content-Type: application/json' -d '{body}'",
    )


def _is_later(settings: Settings, read: Sequence[str], index: str) -> bool:
    """Returns whether applications read a single index, of a later generation than this one."""
    return len(read) == 1 and read[0] > index and read[0].startswith(f"{settings.index}-")


def curl_options(connection: Connection) -> str:
    """Returns the options with which curl signs in, without secrets.

    curl asks for the password. An API key is read from an environment variable.
    """
    options = f" --cacert {connection.ca_file}" if connection.ca_file else ""
    if connection.api_key:
        return options + """ -H "Authorization: ApiKey $API_KEY\""""
    return options + (f" -u {connection.username}" if connection.username else "")
