"""Asks Elasticsearch whether it would accept an index: creates a scratch index like it and deletes it at once.

The scratch index is hidden and called `syncer-check-…`, so the application's searches, aliases and templates do not
match it. Nothing waits for its shards. A check that is killed leaves the index behind; the next check deletes it.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import orjson

from syncer.errors import SyncerError
from syncer.sinks.elasticsearch.client import Http, error_of
from syncer.sinks.problem import Problem, locate

Json = dict[str, Any]

PREFIX = "syncer-check-"
_LEFT_BEHIND = 600
"""Seconds. A check whose index is older is no longer running."""
_MARK: Json = {"_meta": {"syncer": {"check": True}}}
_WITHOUT_WAITING = "wait_for_active_shards=0&timeout=10s&master_timeout=10s"
_PRIVILEGES = f"give its role the index privileges create_index and delete_index on {PREFIX}*; or check --read-only"


def problems(http: Http, block: Mapping[str, Any], index: str, settings: Json, mapping: Json) -> list[Problem]:
    """Returns what the server would certainly refuse.

    block: the sink's block in the read model. index: the name the index would have. settings, mapping: those of the
    index.
    """
    template = _template(http, index)
    found = list(_streams_only(template, index))
    found += _create(http, block, settings, mapping)
    return found + list(_pipelines(http, block, _settings(template) | settings))


def _create(http: Http, block: Mapping[str, Any], settings: Json, mapping: Json) -> Iterator[Problem]:
    sweep(http)
    name = PREFIX + uuid.uuid4().hex
    body = {"settings": settings | {"index.hidden": True}, "mappings": mapping | _MARK}
    try:
        status, raw = http.ask("PUT", f"/{name}?{_WITHOUT_WAITING}", body)
    finally:
        gone = _delete(http, name)
    if status == 200 and not gone:
        yield Problem(f"the scratch index {name} could not be deleted", hint=_PRIVILEGES, certain=False)
    if status == 200:
        return
    kind, reason = error_of(raw, f"HTTP {status}")
    if status == 400:
        words = re.findall(r"\[([^\[\]]+?)(?: : [^\[\]]*)?\]", reason)
        at = locate({key: block.get(key) for key in ("mapping", "settings") if block.get(key)}, words)
        yield Problem("Elasticsearch refuses the index", reason or kind, block=at)
        return
    what = "Elasticsearch could not be asked whether it accepts the mapping and the settings"
    hint = _PRIVILEGES if status in (401, 403) else ""
    yield Problem(what, f"it did not create the index {PREFIX}…: {reason or kind}", hint, certain=False)


def _delete(http: Http, name: str) -> bool:
    with suppress(SyncerError):
        return http.ask("DELETE", f"/{name}?ignore_unavailable=true")[0] in (200, 404)
    return False


def sweep(http: Http, older: float = _LEFT_BEHIND) -> None:
    """Deletes indexes that killed checks left behind. older: their minimum age in seconds."""
    with suppress(SyncerError):
        status, raw = http.ask("GET", f"/{PREFIX}*?expand_wildcards=all")
        for name, info in orjson.loads(raw).items() if status == 200 else ():
            made = int(info["settings"]["index"]["creation_date"]) / 1000
            is_scratch = info["mappings"].get("_meta") == _MARK["_meta"]
            if is_scratch and made < time.time() - older:
                _delete(http, name)


def _template(http: Http, index: str) -> Json:
    """Returns what the server's templates would add to an index of this name.

    Empty if the user lacks the privilege to ask."""
    status, raw = http.ask("POST", f"/_index_template/_simulate_index/{index}")
    found: Json = orjson.loads(raw).get("template", {}) if status == 200 else {}
    return found


def _streams_only(template: Json, index: str) -> Iterator[Problem]:
    """Reports a template that allows only a data stream under the name of the index."""
    if template.get("mappings", {}).get("_data_stream_timestamp"):
        yield Problem(
            f"an index template makes {index} a data stream",
            "an index of that name cannot be created",
            "choose another index name, or narrow index_patterns of the template",
            ("index",),
        )


def _settings(template: Json) -> Json:
    found = template.get("settings", {}).get("index", {})
    return {f"index.{name}": value for name, value in found.items()}


def _pipelines(http: Http, block: Mapping[str, Any], settings: Json) -> Iterator[Problem]:
    """Reports missing pipelines. Elasticsearch accepts an index that names one and then refuses its documents."""
    for key in ("index.default_pipeline", "index.final_pipeline"):
        name = settings.get(key)
        if not name or name == "_none":
            continue
        if http.ask("GET", f"/_ingest/pipeline/{name}")[0] == 404:
            at = locate({"settings": block.get("settings", {})}, [str(name)])
            yield Problem(
                f"there is no ingest pipeline {name}",
                f"{key} names it, so every document would be refused",
                f"create it, or remove {key.partition('.')[2]}",
                at,
            )
