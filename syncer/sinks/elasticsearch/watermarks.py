"""Stores watermarks in the index `syncer-watermarks`, one document per index of documents.

The id is the physical index, because every hit of a search names it in `_index`. The external version makes
Elasticsearch keep the newest watermark. The watermark is not stored in the `_meta` of the mapping, because each change
of `_meta` is an update of the cluster's state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson
from elasticsearch import Elasticsearch

from syncer.ports import PublishedWatermark
from syncer.sinks import watermark as stored
from syncer.sinks.elasticsearch.client import Http, error_of
from syncer.sinks.elasticsearch.settings import Connection, Settings
from syncer.sinks.problem import Problem

INDEX = "syncer-watermarks"
_TIMEOUT = 5.0
"""Seconds for a request."""
_WAIT = "timeout=4s"
"""How long Elasticsearch may wait for a shard."""
_WORD: dict[str, Any] = {"type": "keyword"}
_NUMBER: dict[str, Any] = {"type": "long"}
_TIME: dict[str, Any] = {"type": "date"}
_UNINDEXED: dict[str, Any] = {"type": "keyword", "index": False, "doc_values": False}
_BODY: dict[str, Any] = {
    # No refresh interval: without searches, Elasticsearch does not refresh. `async`: a request need not wait for the
    # disk, because the next watermark replaces one that a crash lost.
    "settings": {
        "index.number_of_shards": 1,
        "index.auto_expand_replicas": "0-1",
        "index.translog.durability": "async",
    },
    "mappings": {
        "dynamic": False,
        "properties": {
            "model": _WORD,
            "generation": _NUMBER,
            "epoch": _NUMBER,
            "clock": _NUMBER,
            "snapshot": _UNINDEXED,  # its text may be long
            "taken_at": _TIME,
            "lsn": _WORD,
            "dead_letters": _NUMBER,
            "searchable_clock": _NUMBER,
            "searchable_taken_at": _TIME,
        },
    },
}


class Watermarks:
    """The watermark of one index. where: the sink's name, for errors. Any thread may use it."""

    def __init__(self, client: Elasticsearch, where: str, index: str) -> None:
        self._http = Http(client.options(request_timeout=_TIMEOUT), where, "")
        self._path = f"/{INDEX}/_doc/{quote(index, safe='')}"
        self._created = False

    def publish(self, watermark: PublishedWatermark) -> None:
        """See `ports.PublishingSink.publish`."""
        if not self._created:
            self._create()
        path = f"{self._path}?version={watermark.version}&version_type=external&{_WAIT}"
        status, raw = self._http.ask("PUT", path, dict(stored.fields(watermark)))
        if status not in (200, 201, 409):  # 409: it has the same or a newer one
            self._created = False
            raise self._http.failed("cannot publish the watermark", status, raw)

    def published(self) -> PublishedWatermark | None:
        """See `ports.PublishingSink.published`."""
        found = self._http.get(self._path)
        return stored.parse(found["_source"]) if found else None

    def _create(self) -> None:
        status, raw = self._http.ask("PUT", f"/{INDEX}?{_WAIT}", _BODY)
        if status != 200 and error_of(raw)[0] != "resource_already_exists_exception":
            raise self._http.failed(f"cannot create the index {INDEX}", status, raw)
        self._created = True


def published(connection: Connection, settings: Settings, generation: int) -> PublishedWatermark | None:
    """Returns the published watermark of a generation; None if there is none. Raises Retry and Fatal."""
    with contextlib.closing(connection.client()) as server:
        return Watermarks(server, f"elasticsearch:{settings.index}", settings.index_of(generation)).published()


def publishing_problems(connection: Connection, settings: Sequence[Settings]) -> list[Problem]:
    """Returns the missing privileges to publish watermarks. Raises Retry and Fatal."""
    wanted = {"index": [{"names": [INDEX], "privileges": ["create_index", "index", "read"]}]}
    with contextlib.closing(connection.client()) as server:
        status, raw = Http(server, f"Elasticsearch at {connection.url}", "").ask(
            "POST", "/_security/user/_has_privileges", wanted
        )
    if status != 200:  # security is disabled, or `preflight` reports that the login was refused
        return []
    missing = [name for name, has in orjson.loads(raw)["index"][INDEX].items() if not has]
    if not missing:
        return []
    return [
        Problem(
            "the watermark cannot be published in Elasticsearch",
            f"the privileges {', '.join(missing)} of the index {INDEX} are missing",
            "grant them by a role to the user or the API key, or set freshness.publish_interval: 0",
        )
    ]
