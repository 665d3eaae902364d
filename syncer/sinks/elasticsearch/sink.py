"""Search indexes: one physical index a generation, written through `_bulk` with external versions.

`NAME-000001` holds generation 1, the alias `NAME-000001-write` is what we write to, and the alias `NAME` is
what applications read. Documents go from PostgreSQL into the bulk body as the text they are, unparsed.
`_bulk.py` has the body and the meaning of its answer, `_elasticsearch_http.py` the requests, `_mapping.py`
the index's mapping.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from elasticsearch import Elasticsearch
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from syncer.config.types import Bytes, Seconds, take_credentials_out
from syncer.declaration.compile import Compiled
from syncer.declaration.compile import Field as DocumentField
from syncer.declaration.names import Shaped
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry, SyncerError
from syncer.ports import DurabilityToken
from syncer.sinks.elasticsearch import bulk, durability, trial
from syncer.sinks.elasticsearch import mapping as _mapping
from syncer.sinks.elasticsearch.adaptive_size import BulkSize
from syncer.sinks.elasticsearch.client import Busy, Http, client, error_of
from syncer.sinks.problem import Problem
from syncer.sinks.target import Target
from syncer.tls import CaFile

Json = dict[str, Any]

_PAGE = 5000
_ITS_OWN = "choose another index name; a search can name several: GET /one,another/_search"
_MAX_CONTENT = 100 << 20  # http.max_content_length, unless the server says otherwise


class Settings(BaseModel):
    """Writes the documents to a search index of Elasticsearch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Annotated[
        str,
        Shaped(
            r"^[^A-Z\\/*?\"<>| ,#:._+-][^A-Z\\/*?\"<>| ,#:]*$",
            'in lower case, without spaces and \\ / * ? " < > | , # :, and not begin with one of . _ + -',
        ),
    ] = Field(
        description="The alias that applications read; the indexes behind it are INDEX-000001 and so on",
        max_length=200,
    )
    mapping: dict[str, Any] = Field(
        {}, description="Mapping of the fields (as Elasticsearch takes it), merged over the derived one"
    )
    settings: dict[str, Any] = Field(
        {}, description="Settings of the index: number_of_shards, refresh_interval, analysis and so on"
    )


class Connection(BaseModel):
    """Where Elasticsearch is, and how to sign in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field("http://127.0.0.1:9200", description="http(s)://host:port; several separated by commas")
    username: str | None = Field(None, description="For basic authentication")
    password: SecretStr | None = Field(None, description="For basic authentication")
    api_key: SecretStr | None = Field(None, description="An encoded API key, instead of a password")
    ca_file: CaFile | None = Field(None, description="PEM file of the authority behind its certificate")
    timeout: Seconds = Field(60, description="Wait this long for an answer (seconds)")
    max_bulk_bytes: Bytes = Field(8 << 20, description="Size of one bulk request (bytes)")

    _credentials = model_validator(mode="before")(take_credentials_out)

    @field_validator("url")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for part in value.split(","):
            if not re.match(r"https?://[^/@]+:\d+(/|$)", part.strip()):
                raise ValueError("it has to be http://host:port or https://host:port")
        return value

    def client(self) -> Elasticsearch:
        """Not connected yet; retries nothing."""
        basic = (self.username, self.password.get_secret_value()) if self.username and self.password else None
        return client(
            self.url,
            basic_auth=basic,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            ca_file=self.ca_file,
            timeout=self.timeout,
        )


def validate(settings: Settings, fields: Sequence[DocumentField]) -> list[Problem]:
    """What is wrong with the declaration for documents of these fields; `check` prints it."""
    return _mapping.problems(settings.mapping, fields) + _mapping.setting_problems(settings.settings)


def tried(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    """See `sinks.SinkModule.tried`. An index is made and deleted for it."""
    with contextlib.closing(connection.client()) as server:
        http = Http(server, f"Elasticsearch at {connection.url}", "")
        for index, info in (http.get(f"/{settings.index}") or {}).items():
            if _meta(info).get("model") != model.name:
                what = "an index" if index == settings.index else f"an alias of {index}"
                why = "which is not of this read model"
                hint = "choose another index name, or remove what has this one"
                return [Problem(f"the name {settings.index} is taken by {what}", why, hint, ("index",))]
        return trial.problems(
            http,
            settings.model_dump(),
            f"{settings.index}-000001",
            _mapping.settings(settings.settings),
            _mapping.mapping(settings.mapping, model.fields),
        )


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    """That it is away, or that the user lacks privileges. Without security, everybody has all."""
    where = f"Elasticsearch at {connection.url}"
    with contextlib.closing(connection.client()) as server:
        http = Http(server, where, "")
        try:
            missing = _missing_privileges(http, sorted({one.index for one in settings}))
        except SyncerError as error:
            return [error]
    if not missing:
        return []
    hint = "give them to the user (or key) of elasticsearch.username (api_key), by a role"
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
    if status != 200:  # there is no security to ask
        http.must("GET", "/_cluster/health?filter_path=status")
        return []
    found = orjson.loads(raw)
    missing = [f"{one} of the cluster" for one, has in found["cluster"].items() if not has]
    for name, given in found["index"].items():
        missing += [f"{one} of the index {name}" for one, has in given.items() if not has]
    return missing


def misread(connection: Connection, settings: Settings, generation: int) -> SyncerError | None:
    """Whether the alias that applications read is of other indexes than of this generation's: moved to an old
    one by hand, removed, or put on two. A resync moves it to a later generation before that is registered."""
    alias, index = settings.index, _index(settings, generation)
    with contextlib.closing(connection.client()) as server:
        http = Http(server, f"elasticsearch:{alias}", "")
        read = sorted(http.get(f"/_alias/{alias}") or {})
        if read == [index] or _is_later(settings, read, index) or http.get(f"/{index}") is None:
            return None
    actions = [{"remove": {"index": name, "alias": alias}} for name in read if name != index]
    body = orjson.dumps({"actions": [*actions, {"add": {"index": index, "alias": alias}}]}).decode()
    url = connection.url.partition(",")[0].strip().rstrip("/")
    command = f"curl{_sign_in(connection)} -X POST {url}/_aliases"
    return Fatal(
        f"readers of {alias} see {' and '.join(read) or 'no index'}, but {index} is kept in sync",
        where=f"elasticsearch:{alias}",
        why="the alias was moved or removed by hand",
        hint=f"{command} -H 'Content-Type: application/json' -d '{body}'",
    )


def _is_later(settings: Settings, read: Sequence[str], index: str) -> bool:
    """Whether readers see one index, of a later generation than this one."""
    return len(read) == 1 and read[0] > index and read[0].startswith(f"{settings.index}-")


def _sign_in(connection: Connection) -> str:
    """Options of curl, without secrets: it asks for a password; an API key is taken from a variable."""
    options = f" --cacert {connection.ca_file}" if connection.ca_file else ""
    if connection.api_key:
        return options + """ -H "Authorization: ApiKey $API_KEY\""""
    return options + (f" -u {connection.username}" if connection.username else "")


def _index(settings: Settings, generation: int) -> str:
    return f"{settings.index}-{generation:06d}"


class ElasticsearchSink:
    """The `Sink` port over one index. Safe to share between threads."""

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
        self.index = _index(settings, generation)
        self.write_alias = f"{self.index}-write"
        self._settings = settings
        self._model = model
        self._target = Target.of(self.name, model, epoch, generation)
        self._client = connection.client()
        self._http = Http(self._client, self.name, self._target.resync)
        self._size = BulkSize(connection.max_bulk_bytes)
        self._max_content = _MAX_CONTENT
        self._bulk_path = f"/{quote(self.write_alias)}/_bulk?require_alias=true&filter_path={bulk.FILTER}"

    # -- the target ---------------------------------------------------------------------------------------

    def prepare(self, *, new: bool = True) -> None:
        """Create the index and its aliases, or accept what is there. Several processes may do so at once."""
        found = self._http.get(f"/{self.index}")
        if found is None:
            if not new:
                raise self._target.gone(f"the index {self.index}")
            self._check_read_alias()
            self._create()
            found = self._http.get(f"/{self.index}") or {}
        self._accept(found)
        path = "/_nodes/http?filter_path=nodes.*.http.max_content_length_in_bytes"
        status, raw = self._http.ask("GET", path)
        if status == 200:  # needs the privilege `monitor`; without it, the default is assumed
            nodes = orjson.loads(raw).get("nodes", {}).values()
            limits = [node["http"]["max_content_length_in_bytes"] for node in nodes]
            self._max_content = min(limits, default=_MAX_CONTENT)
            self._size.most = min(self._size.most, self._max_content)

    def _create(self) -> None:
        aliases: Json = {self.write_alias: {}}
        if self._http.get(f"/_alias/{self.alias}") is None:
            aliases[self.alias] = {}
        body = {
            "aliases": aliases,
            "settings": _mapping.settings(self._settings.settings),
            "mappings": _mapping.mapping(self._settings.mapping, self._model.fields)
            | {"_meta": {"syncer": self._target.meta()}},
        }
        status, raw = self._http.ask("PUT", f"/{self.index}", body)
        if status != 200 and error_of(raw)[0] != "resource_already_exists_exception":
            raise self._http.failed("cannot create the index", status, raw)

    def _accept(self, found: Json) -> None:
        info = found.get(self.index)
        if info is None:
            raise Fatal(f"{self.index} is a name of something else: {', '.join(found)}", where=self.name)
        meta = _meta(info)
        if meta.get("model") != self._model.name:
            owner = f"belongs to the read model {meta.get('model')}" if meta else "was not made by syncer"
            raise Fatal(f"the index {self.index} {owner}", where=self.name, hint=_ITS_OWN)
        self._target.check_epoch(meta["epoch"], "the index")
        self._target.check_hash(meta["hash"])
        has_alias = self._check_read_alias()
        if meta["epoch"] < self._target.epoch:
            self._http.must("PUT", f"/{self.index}/_mapping", {"_meta": {"syncer": self._target.meta()}})
        missing = [self.write_alias] if self.write_alias not in info["aliases"] else []
        if not has_alias:
            missing.append(self.alias)
        if missing:
            actions = [{"add": {"index": self.index, "alias": name}} for name in missing]
            self._http.must("POST", "/_aliases", {"actions": actions})

    def _check_read_alias(self) -> bool:
        """Whether the read alias exists. Raises Fatal when its name is taken by what is not ours, or by an
        index of a later epoch: nobody would keep that one in step."""
        found = self._http.get(f"/{self.alias}")
        for index, info in (found or {}).items():
            meta = _meta(info)
            if meta.get("model") != self._model.name:
                what = "an index" if index == self.alias else f"an alias of {index}"
                raise Fatal(
                    f"the name {self.alias} is taken by {what}, which is not of this read model",
                    where=self.name,
                    hint="choose another index name, or remove what has this one",
                )
            self._target.check_epoch(meta["epoch"], f"the index {index}, which is read,")
        return found is not None

    def outgrown(self) -> list[str]:
        """Compared with the mapping that the index has, whoever made it."""
        found = self._http.get(f"/{self.index}/_mapping") or {}
        actual = found.get(self.index, {}).get("mappings", {}).get("properties", {})
        return _mapping.outgrown(self._settings.mapping, actual, self._model.fields) if found else []

    def activate(self) -> list[str]:
        """Point the read alias at this generation, and at no other, in one step."""
        self._check_read_alias()
        indexes = self._http.get(f"/{self.alias}-*") or {}  # also of resyncs that were given up
        ours = [name for name, info in indexes.items() if _meta(info).get("model") == self._model.name]
        readers = self._http.get(f"/_alias/{self.alias}") or {}
        actions: list[Json] = [
            {"remove": {"index": index, "alias": self.alias}} for index in readers if index != self.index
        ]
        actions.append({"add": {"index": self.index, "alias": self.alias}})
        self._http.must("POST", "/_aliases", {"actions": actions})  # last: nothing fails once readers moved
        return sorted(name for name in ours if name != self.index)

    # -- documents ----------------------------------------------------------------------------------------

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """As the port says. Once a part of the batch is settled, a failure of the rest is told in `again`."""
        out, began = Outcome(), time.monotonic()
        chunks = bulk.chunks(batch, lambda: self._size.bytes, self._max_content, out)
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
        """One request. Returns its halves when the server refuses it as a whole because of what is in it.

        within: seconds for which Elasticsearch may wait for a shard (by itself it would for a minute)."""
        body = chunk.body()
        path = f"{self._bulk_path}&timeout={max(1, round(timeout * 1000))}ms"
        try:
            status, raw = self._http.ask("POST", path, body, "application/x-ndjson")
            if status not in (200, 400, 413):
                raise self._http.failed("cannot write", status, raw)
        except Busy:
            self._size.rejected(len(body))
            raise
        if status == 200:
            in_time = bulk.settle(chunk, orjson.loads(raw), self._target, out)
            (self._size.took if in_time else self._size.rejected)(len(body))
            return ()
        if status == 413:
            self._size.rejected(len(body))
        if len(chunk.ids) > 1:
            return chunk.halves()
        kind, reason = error_of(raw, f"HTTP {status}")
        out.rejected.append(Rejection(chunk.ids[0], f"{kind}: {reason}", kind))
        return ()

    def durability(self) -> DurabilityToken:
        """Needs the privilege `monitor` of the cluster. Raises Retry while a primary is not started.

        The statistics come first: if the state then is as it was, so it was while they were written."""
        stats = self._http.must("GET", f"/{self.index}/_stats/docs{durability.STATS}")
        state = self._http.must("GET", f"/_cluster/state/metadata,routing_table/{self.index}{durability.STATE}")
        if not state:
            raise self._target.gone(f"the index {self.index}")
        found = durability.durability(state, stats)
        if found is None:
            raise Retry("not all primary shards are started", where=self.name)
        return found

    def ids(self, since: str = "") -> Iterator[str]:
        """Every id of this generation, by a point in time; raises Retry when that breaks off.

        https://www.elastic.co/docs/reference/elasticsearch/rest-apis/paginate-search-results#search-after
        """
        self._http.must("POST", f"/{self.index}/_refresh")
        pit = self._http.must("POST", f"/{self.index}/_pit?keep_alive=2m")["id"]
        query: Json = {"size": _PAGE, "_source": False, "track_total_hits": False, "sort": ["_shard_doc"]}
        if since:
            query["query"] = {"range": {"_seq_no": {"gt": int(since)}}}
        try:
            while True:
                query["pit"] = {"id": pit, "keep_alive": "2m"}
                path = "/_search?filter_path=pit_id,timed_out,_shards.failed,hits.hits._id,hits.hits.sort"
                page = self._http.must("POST", path, query)
                if page["timed_out"] or page["_shards"]["failed"]:
                    raise Retry("a shard failed while the ids were listed", where=self.name)
                hits = page.get("hits", {}).get("hits", [])
                yield from (hit["_id"] for hit in hits)
                if len(hits) < _PAGE:
                    return
                pit, query["search_after"] = page["pit_id"], hits[-1]["sort"]
        finally:
            with contextlib.suppress(SyncerError):  # it ends by itself, too
                self._http.ask("DELETE", "/_pit", {"id": pit})

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The documents exactly as they were written, also those that no refresh has made searchable yet."""
        out: dict[str, bytes] = {}
        fit = [id for id in ids if not bulk.unfit(id)]
        for start in range(0, len(fit), 500):
            # no filter_path: it would write the documents anew, with other digits
            raw = self._http.must_raw("POST", f"/{self.index}/_mget", {"ids": fit[start : start + 500]})
            for doc in bulk.documents(raw.decode()):
                if "error" in doc:
                    why = doc["error"].get("reason", "")
                    if doc["error"]["type"] == "index_not_found_exception":
                        raise Fatal("the index is gone", where=self.name, why=why, hint=self._target.resync)
                    raise Retry("cannot read", where=self.name, why=why)
                if doc["found"]:
                    out[doc["_id"]] = doc["_source"]
        return out

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Nothing is removed here by itself."""
        return set()

    def normalize(self, body: bytes) -> bytes | None:
        return body

    def count(self) -> int:
        """Documents in this generation, as of now."""
        self._http.must("POST", f"/{self.index}/_refresh")
        return int(self._http.must("GET", f"/{self.index}/_count")["count"])

    def close(self) -> None:
        self._client.close()


def _meta(index: Json) -> Json:
    """What the read model that made an index wrote there; empty if none did."""
    found: Json = index["mappings"].get("_meta", {}).get("syncer", {})
    return found


SINK = ElasticsearchSink
