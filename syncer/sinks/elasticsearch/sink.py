"""The Elasticsearch sink: one index per generation, written through `_bulk` with external versions.

`NAME-000001` is the index of generation 1. The syncer writes to its alias `NAME-000001-write`. Applications read the
alias `NAME`. The text of a document goes from PostgreSQL into the bulk body without being parsed.
If the read model has partials, they are in the hidden index `NAME-000001-partials`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from syncer.declaration.compile import Compiled
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry
from syncer.ports import DurabilityToken, PublishedWatermark
from syncer.sinks.chunks import pages
from syncer.sinks.elasticsearch import bulk, durability, index, mapping
from syncer.sinks.elasticsearch.adaptive_size import BulkSize
from syncer.sinks.elasticsearch.client import Busy, Http, error_of
from syncer.sinks.elasticsearch.partials import ElasticsearchPartials
from syncer.sinks.elasticsearch.scan import scan
from syncer.sinks.elasticsearch.settings import Connection, Settings
from syncer.sinks.elasticsearch.watermarks import Watermarks
from syncer.sinks.partials import StoresPartials
from syncer.sinks.target import Target

Json = dict[str, Any]

_PAGE = 5000
_PAGE_BY_ID = 500
_LINES = "application/x-ndjson"
_PROBE_TIMEOUT = "30s"


class ElasticsearchSink(StoresPartials):
    """Implements `ports.Sink` over one index. Safe to share between threads."""

    in_place = False
    _partials: ElasticsearchPartials | None

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        *,
        model: Compiled,
        epoch: int = 1,
        generation: int = 1,
    ) -> None:
        self.name = f"elasticsearch:{settings.index}"
        self.alias = settings.index
        self.index = settings.index_of(generation)
        self.write_alias = f"{self.index}-write"
        self._settings = settings
        self._model = model
        self._target = Target.of(self.name, model, epoch, generation)
        self._client = connection.client()
        self._http = Http(self._client, self.name, self._target.resync)
        self._watermarks = Watermarks(self._client, self.name, self.index)
        self._size = BulkSize(connection.max_bulk_bytes)
        self._partials = None
        if model.partials:
            declared = index.settings(settings.settings)
            self._partials = ElasticsearchPartials(self._http, self.index, declared, self._target, self._size)
        self._bulk_path = f"/{quote(self.write_alias)}/_bulk?require_alias=true&filter_path={bulk.FILTER}"

    def prepare(self, *, new: bool = True) -> None:
        """Creates the index and its aliases, or accepts an existing index of this read model."""
        found = self._http.get(f"/{self.index}")
        if found is None:
            if not new:
                raise self._target.gone(f"the index {self.index}")
            self._check_read_alias()
            if self._partials:
                self._partials.create()  # first: if there is an index of documents, there is one of partials
            self._create()
            found = self._http.get(f"/{self.index}") or {}
        self._accept(found)
        if self._partials:
            self._partials.accept()
        path = "/_nodes/http?filter_path=nodes.*.http.max_content_length_in_bytes"
        status, raw = self._http.ask("GET", path)
        if status == 200:  # without the privilege `monitor` the default is assumed
            nodes = orjson.loads(raw).get("nodes", {}).values()
            limits = [node["http"]["max_content_length_in_bytes"] for node in nodes]
            self._size.largest = min(limits, default=self._size.largest)
            self._size.limit = min(self._size.limit, self._size.largest)

    def _create(self) -> None:
        aliases: Json = {self.write_alias: {}}
        if self._http.get(f"/_alias/{self.alias}") is None:
            aliases[self.alias] = {}
        body = index.body(self._settings, self._model, self._target, aliases)
        status, raw = self._http.ask("PUT", f"/{self.index}", body)
        if status != 200 and error_of(raw)[0] != "resource_already_exists_exception":
            raise self._http.failed("cannot create the index", status, raw)

    def _accept(self, found: Json) -> None:
        """Checks the record of the index, updates its epoch, and adds missing aliases."""
        info = found.get(self.index)
        if info is None:
            raise Fatal(f"{self.index} is an alias of {', '.join(found)}, not an index", where=self.name)
        meta = index.meta(info)
        if meta.get("model") != self._model.name:
            owner = f"belongs to the read model {meta.get('model')}" if meta else "was not created by the syncer"
            raise Fatal(f"the index {self.index} {owner}", where=self.name, hint=index.OTHER_NAME)
        self._target.check_epoch(meta["epoch"], "the index")
        self._target.check_hash(meta["hash"])
        has_alias = self._check_read_alias() is not None
        if meta["epoch"] < self._target.epoch:
            self._http.must("PUT", f"/{self.index}/_mapping", index.record(self._target))
        missing = [self.write_alias] if self.write_alias not in info["aliases"] else []
        if not has_alias:
            missing.append(self.alias)
        if missing:
            actions = [{"add": {"index": self.index, "alias": name}} for name in missing]
            self._http.must("POST", "/_aliases", {"actions": actions})

    def _check_read_alias(self) -> Json | None:
        """Returns the indexes of the alias that applications read, by name. None if it does not exist.

        Raises Fatal when its name is taken, or when it points to an index of a later epoch. Applications would then
        read an index that this syncer does not update.
        """
        found = self._http.get(f"/{self.alias}")
        for name, info in (found or {}).items():
            meta = index.meta(info)
            if meta.get("model") != self._model.name:
                raise Fatal(index.taken(self.alias, name), where=self.name, hint=index.TAKEN_HINT)
            self._target.check_epoch(meta["epoch"], f"the index {name}, which applications read,")
        return found

    def outgrown(self) -> list[str]:
        """Compares the fields with the mapping that the index has now."""
        found = self._http.get(f"/{self.index}/_mapping") or {}
        actual = found.get(self.index, {}).get("mappings", {}).get("properties", {})
        return mapping.outgrown(self._settings.mapping, actual, self._model.fields) if found else []

    def activate(self) -> list[str]:
        """Moves the alias that applications read to this generation, in one atomic request."""
        readers = self._check_read_alias() or {}
        # also those of abandoned resyncs, and the hidden ones of partials
        indexes = self._http.get(f"/{self.alias}-*?expand_wildcards=open,hidden") or {}
        own = {
            name: meta.get("generation", 0)
            for name, info in indexes.items()
            if (meta := index.meta(info)).get("model") == self._model.name
        }
        if set(readers) != {self.index}:
            # `must_exist`: the request fails if the alias has left one of these. Otherwise it would then be added to
            # this index, too, and readers would see both.
            actions: list[Json] = [
                {"remove": {"index": name, "alias": self.alias, "must_exist": True}}
                for name in readers
                if name != self.index
            ]
            actions.append({"add": {"index": self.index, "alias": self.alias}})
            self._http.must("POST", "/_aliases", {"actions": actions})  # last: readers move when all else is done
        return sorted(name for name, generation in own.items() if generation < self._target.generation)

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """Writes as `ports.WritableSink.write` says.

        Once a part of the batch is acknowledged, a failure of the rest is returned in `retry`, not raised.
        """
        out, began = Outcome(), time.monotonic()
        chunks = bulk.chunks(batch, lambda: self._size.bytes, self._size.largest, out)
        parts: list[bulk.Chunk] = []
        while part := parts.pop() if parts else next(chunks, None):
            try:
                left = began + timeout - time.monotonic()
                if left <= 0:
                    raise self._target.late(timeout, len(batch))
                parts += self._send(part, out, left)
            except Retry as error:
                if out == Outcome():
                    raise
                out.retry_reason = str(error)
                out.retry += [id for rest in (part, *parts, *chunks) for id in rest.ids]
                parts.clear()
        out.request_bytes = self._size.bytes
        return out

    def _send(self, chunk: bulk.Chunk, out: Outcome, timeout: float) -> Sequence[bulk.Chunk]:
        """Sends one request. Returns its halves when the server refuses the whole request because of its content.

        timeout: seconds for which Elasticsearch may wait for a shard. Its default is a minute.
        """
        body = chunk.body()
        path = f"{self._bulk_path}&timeout={max(1, round(timeout * 1000))}ms"
        try:
            status, raw = self._http.ask("POST", path, body, _LINES)
            if status not in (200, 400, 413):
                raise self._http.failed("cannot write", status, raw)
        except Busy:
            self._size.rejected(len(body))
            raise
        if status == 200:
            in_time = bulk.apply_answer(chunk, orjson.loads(raw), self._target, out)
            (self._size.accepted if in_time else self._size.rejected)(len(body))
            return ()
        if status == 413:
            self._size.rejected(len(body))
        if len(chunk.ids) > 1:
            return chunk.halves()
        kind, reason = error_of(raw, f"HTTP {status}")
        out.rejected.append(Rejection(chunk.ids[0], f"{kind}: {reason}", kind))
        return ()

    def durability(self) -> DurabilityToken:
        """Needs the privilege `monitor` of the cluster. Raises Retry while a primary shard is not started.

        Also forgets old partials. Lost partials count as lost documents.
        """
        token = self._token(self.index)
        if self._partials:
            token = token._replace(documents=f"{token.documents} {self._token(self._partials.index).documents}")
            self._partials.purge()
        return token

    def _token(self, index: str) -> DurabilityToken:
        """The statistics are read before the state. If the state is then unchanged, it did not change in between."""
        stats = self._http.must("GET", f"/{index}/_stats/docs{durability.STATS}")
        state = self._http.must("GET", f"/_cluster/state/metadata,routing_table/{index}{durability.STATE}")
        if not state:
            raise self._target.gone(f"the index {index}")
        found = durability.durability(state, stats)
        if found is None:
            raise Retry("not all primary shards are started", where=self.name)
        return found

    def publish(self, watermark: PublishedWatermark) -> None:
        self._watermarks.publish(watermark)

    def published(self) -> PublishedWatermark | None:
        return self._watermarks.published()

    def make_searchable(self, timeout: float) -> None:
        """Refreshes the index. Every copy of every shard has to take part, because a search may use any of them."""
        http = Http(self._client.options(request_timeout=timeout), self.name, self._target.resync)
        shards = http.must("POST", f"/{self.index}/_refresh")["_shards"]
        if shards["failed"]:
            raise Retry("a shard could not be refreshed", where=self.name)

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields every id of this generation, as of one point in time. Raises Retry when a page fails."""
        query: Json = {"query": {"range": {"_seq_no": {"gt": int(since)}}}} if since else {}
        yield from (hit["_id"] for hit in scan(self._http, self.name, self.index, _PAGE, query))

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Returns the documents exactly as they were written, also those that are not searchable yet."""
        # no filter_path: see bulk.documents
        found = self._get(ids, "/_mget")
        return {doc["_id"]: doc["_source"] for doc in found}

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Returns the versions of documents and of remembered deletes.

        Elasticsearch reports the version of a delete only in the answer to a conflicting write. So ids without a
        document are deleted with a version below all others. If there is no remembered delete either, the index then
        remembers this one. That changes nothing: every write has a higher version.
        """
        out = {doc["_id"]: int(doc["_version"]) for doc in self._get(ids, "/_mget?_source=false")}
        absent = [id for id in ids if id not in out]
        probe = Batch(bulk.PROBE, {}, absent)
        for chunk in bulk.chunks(probe, lambda: self._size.bytes, self._size.largest, Outcome()):
            raw = self._http.must_raw("POST", f"{self._bulk_path}&timeout={_PROBE_TIMEOUT}", chunk.body(), _LINES)
            out |= bulk.present_versions(chunk, orjson.loads(raw), self._target)
        return out

    def _get(self, ids: Sequence[str], path: str) -> Iterator[Json]:
        """Yields the items of `_mget` for existing documents. Raises Fatal if the index is missing."""
        fit = [id for id in ids if not bulk.id_problem(id)]
        for page in pages(fit, _PAGE_BY_ID):
            raw = self._http.must_raw("POST", f"/{self.index}{path}", {"ids": page})
            for doc in bulk.documents(raw.decode()):
                if "error" in doc:
                    why = doc["error"].get("reason", "")
                    if doc["error"]["type"] == "index_not_found_exception":
                        raise Fatal("the index is missing", where=self.name, why=why, hint=self._target.resync)
                    raise Retry("cannot read documents", where=self.name, why=why)
                if doc["found"]:
                    yield doc

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Returns nothing: Elasticsearch removes no document by itself."""
        return set()

    def normalize(self, body: bytes) -> bytes | None:
        return body

    def count(self) -> int:
        """Returns the number of documents in this generation, including those that are not searchable yet."""
        self._http.must("POST", f"/{self.index}/_refresh")
        return int(self._http.must("GET", f"/{self.index}/_count")["count"])

    def close(self) -> None:
        self._client.close()


SINK = ElasticsearchSink
