"""Stores partials in a hidden index. One document of this index holds all partials of one root.

    NAME-000001-partials    epoch, parts: {BUCKET: {v: version, b: body}}, dead_at

A search does not see a write before the next refresh. So a writer reads the document by its id, which also finds a
write that is not searchable yet. It adds its partials. Then it writes the document, on the condition that no other
writer has written it since (`if_seq_no`, or `create` for a new one). If one has, it reads again. So a write is atomic,
and it contains all writes that were acknowledged before.

The index is hidden and has no readers' alias. Patterns such as `NAME-*` do not match a hidden index. Its fields are not
indexed, except for the time when a root was deleted: two hours later, its partials are removed. Elasticsearch forgets
the delete of the combined document after one hour (`index.gc_deletes`).

https://www.elastic.co/docs/reference/elasticsearch/rest-apis/optimistic-concurrency-control
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from syncer.errors import Fatal, Retry
from syncer.ports import StoredPartial
from syncer.sinks.chunks import chunks, pages
from syncer.sinks.elasticsearch import bulk, index
from syncer.sinks.elasticsearch.adaptive_size import BulkSize
from syncer.sinks.elasticsearch.client import Busy, Http, reason_of
from syncer.sinks.elasticsearch.partial_documents import Stored, Written, action, merged, parts_of, removal, written
from syncer.sinks.elasticsearch.scan import scan
from syncer.sinks.partials import Found, Given, separate
from syncer.sinks.target import Target

Json = dict[str, Any]

_DOCUMENTS = 200
"""Documents of one request, at most. It has all their partials."""
_PAGE = 200
_ATTEMPTS = 20
"""How often a document is read and written again, when other processes write it meanwhile."""
_PAUSE = 0.005
"""Seconds. Before the n-th attempt, a writer waits up to n times as long."""
_DEAD = "2h"
_PURGED = 1000
"""Documents whose partials one call forgets, at most."""
_PURGE_INTERVAL = 60.0
"""Seconds."""
_LINES = "application/x-ndjson"
_COPIED = ("index.number_of_shards", "index.number_of_replicas", "index.auto_expand_replicas")


class Answer(NamedTuple):
    """The result of one attempt."""

    found: Found
    conflicts: list[str]
    reason: str


class ElasticsearchPartials:
    """The partials of one generation. Safe to share between threads.

    documents: the index of the documents. settings: of this index. size: how large requests may be, adapted here, too.
    """

    def __init__(self, http: Http, documents: str, settings: Json, target: Target, size: BulkSize) -> None:
        self.index = f"{documents}-partials"
        self._write_alias = f"{self.index}-write"
        self._http, self._settings, self._target, self._size = http, settings, target, size
        self._purged_at = time.monotonic()

    def create(self) -> None:
        """Creates the index, or accepts the one of an attempt that ended before it created the index of documents."""
        if (found := self._http.get(f"/{self.index}")) is not None:
            self._check(found)
            return
        own = {  # explicit, because the templates of an operator may match the name
            "index.hidden": True,
            "index.translog.durability": "request",
            "index.default_pipeline": "_none",
            "index.final_pipeline": "_none",
        }
        unread: Json = {"type": "object", "enabled": False}
        body: Json = {
            "aliases": {self._write_alias: {"is_hidden": True}},
            "settings": {name: value for name, value in self._settings.items() if name in _COPIED} | own,
            "mappings": {
                "dynamic": False,
                "properties": {"parts": unread, "epoch": unread, "dead_at": {"type": "date", "format": "epoch_millis"}},
                **index.record(self._target),
            },
        }
        status, raw = self._http.ask("PUT", f"/{self.index}", body)
        if status != 200 and b"resource_already_exists_exception" not in raw:
            raise self._http.failed("cannot create the index of partials", status, raw)

    def accept(self) -> None:
        """Checks an existing index. Raises Fatal if it is missing, because its partials are missing then."""
        if (found := self._http.get(f"/{self.index}")) is None:
            raise self._target.gone(f"the index {self.index}")
        self._check(found)

    def _check(self, found: Json) -> None:
        info = found.get(self.index, {"mappings": {}})
        meta = index.meta(info)
        if meta.get("model") != self._target.model:
            what = f"the index {self.index} does not belong to this read model"
            raise Fatal(what, where=self._target.name, hint=index.TAKEN_HINT)
        self._target.check_hash(meta["hash"])
        if self._write_alias not in info["aliases"]:
            add = {"index": self.index, "alias": self._write_alias, "is_hidden": True}
            self._http.must("POST", "/_aliases", {"actions": [{"add": add}]})

    def write(self, version: int, partials: Given, timeout: float) -> Found:
        """See `ports.PartialSink.write_partials`. Leaves out documents that the server had no time for.

        Elasticsearch cannot store some ids, for example the empty one.
        """
        deadline, found, reason = time.monotonic() + timeout, Found(), ""
        left, impossible = separate(version, partials, bulk.id_problem)
        for attempt in range(_ATTEMPTS):
            if attempt > 1:  # without a pause of a random length, a slow writer loses each time
                time.sleep(min(random.random() * _PAUSE * attempt, max(0.0, deadline - time.monotonic())))
            conflicts: list[str] = []
            for ids in pages(left, _DOCUMENTS):
                if time.monotonic() >= deadline:
                    if not found:
                        raise self._target.late(timeout, len(partials))
                    return found | impossible
                answer = self._add(version, {id: partials[id] for id in ids}, deadline)
                found |= answer.found
                conflicts += answer.conflicts
                reason = answer.reason or reason
            left = conflicts
            if not left:
                break
        if not found and len(impossible) < len(partials):
            why = reason or "other processes wrote the document meanwhile"
            raise Retry("cannot write partials", where=self._target.name, why=why)
        return found | impossible

    def _add(self, version: int, partials: Given, deadline: float) -> Answer:
        """Reads these documents, adds the partials, and writes them. Documents without a change are not written."""
        out, lines = Answer({}, [], ""), dict[str, bytes]()
        documents = dict[str, Json]()
        before = self._get(list(partials))
        for id, parts in partials.items():
            known = before.get(id, Stored({}))
            self._target.check_epoch(known.source.get("epoch", 0), f"the partials of document {id!r}")
            document = merged(known.source, version, parts, time.time())
            if document is None:
                out.found[id] = parts_of(known.source)
                continue
            line = action(id, known) + orjson.dumps(document) + b"\n"
            if len(line) > self._size.largest:
                out.found[id] = self._refused(version, parts, len(line), f"accepts {self._size.largest:,} bytes")
            else:
                documents[id], lines[id] = document, line
        whole = chunks(lines, lambda id: len(lines[id]), max_size=lambda: self._size.bytes)
        halves: list[Sequence[str]] = []
        while chunk := halves.pop() if halves else next(whole, None):
            answer = self._send(chunk, lines, max(deadline - time.monotonic(), 0.001))
            if answer is not None:
                out.found.update((id, parts_of(documents[id])) for id in answer.written)
                out.conflicts.extend(answer.conflicts)
                out = out._replace(reason=answer.reason or out.reason)
            elif len(chunk) > 1:
                middle = len(chunk) // 2
                halves += [chunk[middle:], chunk[:middle]]
            else:
                [id] = chunk
                out.found[id] = self._refused(version, partials[id], len(lines[id]), "or a proxy answered HTTP 413")
        return out

    def _refused(
        self, version: int, parts: Mapping[str, bytes | None], size: int, limit: str
    ) -> dict[str, StoredPartial]:
        """Returns the answer for partials that no request can write. Retries would block the lane for ever."""
        reason = (
            f"all partials of a document are one request, here of {size:,} bytes, and the server {limit}; raise"
            " http.max_content_length, and the limit of a proxy; or choose a larger `size` of `partials`, so that"
            f" there are fewer, then: {self._target.resync}"
        )
        return {bucket: StoredPartial(version, body, reason) for bucket, body in parts.items()}

    def _send(self, ids: Sequence[str], lines: Mapping[str, bytes], timeout: float) -> Written | None:
        """Sends one request. Returns None if it is too large for the server or a proxy."""
        body = b"".join(lines[id] for id in ids)
        options = f"require_alias=true&timeout={max(1, round(timeout * 1000))}ms&filter_path={bulk.FILTER}"
        try:
            status, raw = self._http.ask("POST", f"/{quote(self._write_alias)}/_bulk?{options}", body, _LINES)
            if status not in (200, 413):
                raise self._http.failed("cannot write partials", status, raw)
        except Busy:
            self._size.rejected(len(body))
            raise
        if status == 413:
            self._size.rejected(len(body))
            return None
        answer = written(ids, orjson.loads(raw), self._target)
        (self._size.accepted if answer.in_time else self._size.rejected)(len(body))
        return answer

    def read(self, ids: Sequence[str]) -> Found:
        """See `ports.PartialSink.read_partials`."""
        possible = [id for id in ids if not bulk.id_problem(id)]
        found = self._get(possible).items()
        return {id: parts_of(one.source) for id, one in found if one.source["epoch"] == self._target.epoch}

    def _get(self, ids: Sequence[str]) -> dict[str, Stored]:
        """Reads documents by id, in their newest version."""
        found: dict[str, Stored] = {}
        for page in pages(ids, _PAGE):
            answer = self._http.must("POST", f"/{self.index}/_mget", {"ids": page})
            for doc in answer["docs"]:
                if "error" in doc:
                    why = reason_of(doc["error"])
                    if doc["error"]["type"] == "index_not_found_exception":
                        raise self._target.gone(f"the index {self.index}")
                    raise Retry("cannot read partials", where=self._target.name, why=why)
                if doc["found"]:
                    found[doc["_id"]] = Stored(doc["_source"], doc["_seq_no"], doc["_primary_term"])
        return found

    def ids(self) -> Iterator[tuple[str, str]]:
        """See `ports.PartialSink.partial_ids`."""
        for hit in scan(self._http, self._target.name, self.index, _PAGE, {}, ["epoch", "parts.*.v"]):
            if hit["_source"]["epoch"] == self._target.epoch:
                yield from ((hit["_id"], bucket) for bucket in hit["_source"].get("parts", {}))

    def purge(self, *, at_once: bool = False) -> None:
        """Forgets the partials of roots that were deleted two hours ago. Does nothing more often than once a minute.

        Leaves out documents that were written since the search.
        """
        if not at_once and time.monotonic() < self._purged_at + _PURGE_INTERVAL:
            return
        self._purged_at = time.monotonic()
        query = {"range": {"dead_at": {"lt": f"now-{_DEAD}"}}}
        body: Json = {"query": query, "size": _PURGED, "_source": False, "seq_no_primary_term": True}
        with suppress(Retry):  # it is tried again in a minute
            hits = self._http.must("POST", f"/{self.index}/_search", body)["hits"]["hits"]
            if hits:
                lines = b"".join(removal(hit["_id"], hit["_seq_no"], hit["_primary_term"]) for hit in hits)
                self._http.must_raw("POST", f"/{self.index}/_bulk", lines, _LINES)
