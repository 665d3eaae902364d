"""The Elasticsearch sink beyond the contract: its index, its aliases, and the outcome of each server error."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from devstack import Stack
from syncer import sinks
from syncer.declaration.compile import Field
from syncer.document import Batch, Outcome, Rejection
from syncer.errors import Fatal, Retry, SyncerError
from syncer.ports import SearchableSink
from syncer.sinks.elasticsearch.checks import preflight, trial
from syncer.sinks.elasticsearch.client import Http
from syncer.sinks.elasticsearch.readers import curl_options, readers_elsewhere
from syncer.sinks.elasticsearch.scratch_index import sweep
from syncer.sinks.elasticsearch.settings import Connection, Settings
from syncer.sinks.elasticsearch.sink import ElasticsearchSink
from syncer.sinks.elasticsearch.watermarks import publishing_problems
from tests.contracts.sinks import FIELDS, compiled
from tests.harness import Names
from tests.harness.fault_proxy import FaultProxy, Request, fault_proxy
from tests.harness.waiting import until

Make = Callable[..., ElasticsearchSink]
CA = Path(__file__).parents[1] / "unit" / "tls" / "unknown.pem"


@pytest.fixture
def make(stack: Stack, names: Names) -> Iterator[Make]:
    """Returns a function that opens sinks over one index name. Keyword arguments override the defaults."""
    made: list[ElasticsearchSink] = []

    def build(
        *,
        fields: tuple[Field, ...] = FIELDS,
        model: str = "",
        generation: int = 1,
        prepare: bool = True,
        connection: dict[str, Any] | None = None,
        **settings: Any,
    ) -> ElasticsearchSink:
        sink = sinks.build(
            "elasticsearch",
            {"index": names("things"), "settings": {"number_of_replicas": 0}, **settings},
            model=compiled(model or names("things"), fields),
            connection={"url": stack.elasticsearch, **(connection or {})},
            generation=generation,
        )
        assert isinstance(sink, ElasticsearchSink)
        made.append(sink)
        if prepare:
            sink.prepare()
        return sink

    yield build
    for sink in made:
        sink.close()


@pytest.fixture
def proxy(stack: Stack) -> Iterator[FaultProxy]:
    with fault_proxy(stack.elasticsearch) as running:
        yield running


def docs(*numbers: int, at: int = 1, pad: int = 0) -> Batch:
    return Batch(at, {str(n): json.dumps({"n": n, "name": "x" * pad}).encode() for n in numbers}, [])


def call(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    """Sends a request to the server itself, as an operator would, and asserts that it succeeds."""
    answer = urllib3.request(method, stack.elasticsearch + path, json=body)
    assert answer.status == 200, answer.data
    return answer.json()


@contextmanager
def setting(stack: Stack, path: str, name: str, value: Any) -> Iterator[None]:
    """Changes a setting of the cluster or of an index for the duration of the block."""
    wrap = (lambda v: {"persistent": {name: v}}) if path.startswith("/_cluster") else (lambda v: {name: v})
    call(stack, "PUT", path, wrap(value))
    try:
        yield
    finally:
        call(stack, "PUT", path, wrap(None))


# -- the index


def test_an_index_is_created_with_its_aliases_mapping_and_settings(make: Make, stack: Stack) -> None:
    sink = make(
        mapping={
            "name": {"fields": {"sort": {"type": "keyword", "ignore_above": 20}}},
            "n": {"type": "keyword"},
        },
        settings={"index": {"number_of_replicas": 0}, "refresh_interval": "7s"},
    )
    info = call(stack, "GET", f"/{sink.index}")[sink.index]
    assert sink.index == f"{sink.alias}-000001"
    assert set(info["aliases"]) == {sink.alias, f"{sink.index}-write"}
    mapping = info["mappings"]
    assert mapping["dynamic"] == "false"
    assert mapping["_meta"]["syncer"] == {
        "model": sink.alias,
        "hash": "0123456789abcdef",
        "epoch": 1,
        "generation": 1,
    }
    assert mapping["properties"]["n"] == {"type": "keyword"}
    assert set(mapping["properties"]["name"]["fields"]) == {"keyword", "sort"}
    settings = info["settings"]["index"]
    assert (settings["gc_deletes"], settings["refresh_interval"]) == ("1h", "7s")


TYPES = {
    "bigint": 9223372036854775807,
    "integer": -2147483648,
    "smallint": 1,
    "oid": 4294967295,
    "boolean": True,
    "numeric": 1.5,
    "real": "NaN",
    "double precision": "-Infinity",
    "text": "x" * 40_000,
    "citext": "a",
    "character varying": "a",
    "character": "a ",
    "name": "n",
    "uuid": "0" * 32,
    "enum": "shipped",
    "date": "infinity",
    "timestamp with time zone": "2026-01-02T03:04:05.123456+00:00",
    "timestamp without time zone": "20000-01-01T00:00:00",
    "time without time zone": "03:04:05",
    "json": [1, {"a": 2}],
    "jsonb": "scalar",
    "bytea": "\\x00" * 20_000,
    "interval": "1 day",
    "range": "[1,2)",
    "multirange": "{[1,2)}",
    "inet": "::1",
    "cidr": "10.0.0.0/8",
    "macaddr": "08:00:2b:01",
    "money": "$1.00",
    "xml": "<a/>",
    "tsvector": "'a':1",
    "composite": {"a": 1},
    "unknown": {"b": [1, "2"]},
    "array": [[1, 2]],
    "public.odd": "q",
    "hstore": {"a": "1", "b": None},
    "geojson point": {"type": "Point", "coordinates": [181, 91]},
}


def test_every_type_has_a_mapping_that_accepts_its_values(make: Make) -> None:
    fields = tuple(Field(name, name, many=False) for name in TYPES)
    nested = Field("lines", "object", many=True, fields=fields)
    sink = make(fields=(*fields, Field("tags", "text", many=True), nested))
    document = {**TYPES, "tags": ["a", "b"], "lines": [TYPES, TYPES]}
    out = sink.write(Batch(1, {"a": json.dumps(document).encode(), "b": b"{}"}, []))
    assert out == Outcome(written=2), out.rejected
    nulls = dict.fromkeys(TYPES)
    assert sink.write(Batch(1, {"c": json.dumps(nulls).encode()}, [])).written == 1


def test_a_second_generation_leaves_readers_with_the_first(make: Make, stack: Stack) -> None:
    first, second = make(), make(generation=2)
    first.write(docs(1))
    second.write(docs(1, 2))
    assert (first.count(), second.count()) == (1, 2)
    assert list(call(stack, "GET", f"/_alias/{first.alias}")) == [first.index]
    second.prepare()
    assert list(call(stack, "GET", f"/_alias/{first.alias}")) == [first.index]
    for _ in range(2):
        assert second.activate() == [first.index]
        assert list(call(stack, "GET", f"/_alias/{first.alias}")) == [second.index]
    first.prepare()
    first.write(docs(3))  # the old index is still writable
    assert list(call(stack, "GET", f"/_alias/{first.alias}")) == [second.index]
    call(stack, "PUT", f"/{first.alias}-of-others")
    assert first.activate() == [], "a later generation is never safe to delete"
    assert list(call(stack, "GET", f"/_alias/{first.alias}")) == [first.index]


def test_a_switch_that_was_frozen_does_not_add_readers_of_an_earlier_index(
    make: Make, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, frozen, third = make(), make(generation=2), make(generation=3)
    get, frozen_at = frozen._http.get, []

    def switch_meanwhile(path: str) -> Any:
        found = get(path)
        if "expand_wildcards" in path:
            frozen_at.append(path)
            third.activate()
        return found

    monkeypatch.setattr(frozen._http, "get", switch_meanwhile)
    with pytest.raises(SyncerError):
        frozen.activate()
    assert frozen_at
    assert list(call(stack, "GET", f"/_alias/{first.alias}")) == [third.index]


def test_readers_of_another_index_are_detected(make: Make, stack: Stack, names: Names) -> None:
    """The alias was moved to the old index, added to both, or removed. The command of the error corrects each case."""
    connection = Connection.model_validate({"url": stack.elasticsearch})
    settings = Settings.model_validate({"index": names("things")})
    assert readers_elsewhere(connection, settings, 1) is None, "no index exists yet"
    first, second = make(), make(generation=2)
    second.activate()
    assert readers_elsewhere(connection, settings, 2) is None
    add = {"add": {"index": first.index, "alias": first.alias}}
    remove = {"remove": {"index": second.index, "alias": first.alias}}
    for actions, seen in (
        ([add, remove], first.index),
        ([add], f"{first.index} and {second.index}"),
        ([remove], "no index"),
    ):
        call(stack, "POST", "/_aliases", {"actions": actions})
        found = readers_elsewhere(connection, settings, 2)
        assert found and f"readers of {first.alias} see {seen}, but the syncer writes to {second.index}" in found.what
        *_, url, _, _, _, body = shlex.split(found.hint)
        assert url == f"{stack.elasticsearch}/_aliases"
        call(stack, "POST", "/_aliases", json.loads(body))
        assert readers_elsewhere(connection, settings, 2) is None
    assert readers_elsewhere(connection, settings, 1) is None, (
        "a resync moves readers before the generation is registered"
    )


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, ""),
        ({"username": "u", "password": "hidden"}, " -u u"),
        ({"api_key": "hidden"}, """ -H "Authorization: ApiKey $API_KEY\""""),
        ({"ca_file": str(CA)}, f" --cacert {CA}"),
    ],
)
def test_the_command_that_moves_the_alias_contains_no_secrets(given: dict[str, str], options: str) -> None:
    assert curl_options(Connection.model_validate({"url": "https://es:9200", **given})) == options


def test_an_index_name_that_is_taken_is_refused(make: Make, stack: Stack, names: Names) -> None:
    call(stack, "PUT", f"/{names('things')}")
    with pytest.raises(Fatal, match="is taken by an index"):
        make()


def test_an_alias_that_is_taken_is_refused(make: Make, stack: Stack, names: Names) -> None:
    call(stack, "PUT", f"/{names('other')}", {"aliases": {names("things"): {}}})
    with pytest.raises(Fatal, match=r"is taken by an alias of .*-other"):
        make()


def test_an_index_of_another_application_is_refused(make: Make, stack: Stack, names: Names) -> None:
    call(stack, "PUT", f"/{names('things')}-000001")
    with pytest.raises(Fatal, match="was not created by the syncer"):
        make()


def test_an_index_of_another_read_model_is_refused(make: Make, names: Names) -> None:
    make(model="first")
    with pytest.raises(Fatal, match="belongs to the read model first"):
        make(model="second")


def test_missing_aliases_are_added_again(make: Make, stack: Stack) -> None:
    sink = make()
    call(stack, "DELETE", f"/{sink.index}/_alias/{sink.alias},{sink.write_alias}")
    sink.prepare()
    assert sink.write(docs(1)).written == 1
    assert call(stack, "GET", f"/{sink.alias}/_count")


def test_an_unknown_analyzer_is_refused(make: Make) -> None:
    with pytest.raises(Fatal, match="cannot create the index") as caught:
        make(mapping={"name": {"type": "text", "analyzer": "nonesuch"}})
    assert "nonesuch" in caught.value.why


def test_all_pages_of_ids_are_read(make: Make) -> None:
    sink = make()
    upserts = {f"k{i}": b"{}" for i in range(12_001)}
    assert sink.write(Batch(1, upserts, [])).written == 12_001
    found = list(sink.ids())
    assert len(found) == 12_001
    assert set(found) == set(upserts)
    for _ in sink.ids():  # the iterator is abandoned: the point in time is closed
        break


# -- durability


def test_hazard_21_a_reopened_shard_forgets_deletes_and_changes_the_durability_token(make: Make, stack: Stack) -> None:
    sink = make(settings={"number_of_shards": 2, "number_of_replicas": 0})
    sink.write(docs(*range(100), at=5))
    assert sink.write(Batch(7, {}, ["1"])).deleted == 1
    assert sink.write(docs(1, at=6)).stale == 1
    call(stack, "POST", f"/{sink.index}/_flush")
    before = sink.durability()
    assert sink.durability() == before
    call(stack, "POST", f"/{sink.index}/_close")
    with pytest.raises(Retry, match="closed"):
        sink.durability()
    call(stack, "POST", f"/{sink.index}/_open")
    until(lambda: sink.write(docs(1, at=6)).written == 1)  # the ghost
    after = sink.durability()
    assert after.tombstones != before.tombstones
    assert after.documents == before.documents
    assert "1" in set(sink.ids(before.written))
    assert len(set(sink.ids(before.written))) < 50 < len(set(sink.ids()))


def test_a_recreated_index_has_another_durability_token(make: Make, stack: Stack) -> None:
    sink = make()
    before = sink.durability()
    call(stack, "DELETE", f"/{sink.index}")
    with pytest.raises(Fatal, match="is missing") as caught:
        sink.durability()
    assert caught.value.hint == f"syncer resync {sink.alias}"
    sink.prepare()  # the same happens when a snapshot is restored
    assert sink.durability().documents != before.documents


def test_an_unassigned_shard_has_no_durability_token(make: Make, stack: Stack) -> None:
    sink = make()
    before = sink.durability()
    filter = "index.routing.allocation.require._name"
    call(stack, "POST", f"/{sink.index}/_close")
    with setting(stack, f"/{sink.index}/_settings", filter, "nobody"):
        call(stack, "POST", f"/{sink.index}/_open?wait_for_active_shards=0")
        with pytest.raises(Retry, match="not all primary shards"):
            sink.durability()
    until(lambda: sink.write(docs(1)).written)
    assert sink.durability().documents == before.documents


GIVEN_FOR_JSON: list[dict[str, Any]] = [
    {"type": "object", "properties": {"color": {"type": "keyword"}}},
    {"properties": {"color": {"type": "keyword"}}},
    {"type": "object", "dynamic": True},
    {"dynamic": True},
    {"dynamic": "runtime"},
    {"type": "nested", "properties": {"color": {"type": "keyword"}}},
    {"type": "flattened"},
]


EXTRA = Field("extra", "jsonb", many=False)
LINES = Field("lines", "object", many=True, fields=(EXTRA,))


def found_red(make: Make, stack: Stack, field: Field, mapping: dict[str, Any], *, nested: str = "") -> list[str]:
    """Writes two documents and returns the ids that a search for the color in `extra` finds."""
    extra = {"extra": {"color": "red"}}
    body, path = (extra, "extra.color") if field is EXTRA else ({"lines": [extra]}, "lines.extra.color")
    sink = make(fields=(field,), mapping=mapping)
    assert sink.write(Batch(1, {"a": json.dumps(body).encode(), "b": b"{}"}, [])).written == 2
    call(stack, "POST", f"/{sink.index}/_refresh")
    query: dict[str, Any] = {"match": {path: "red"}}
    if nested:
        query = {"nested": {"path": nested, "query": query}}
    found = call(stack, "POST", f"/{sink.alias}/_search", {"query": query})
    return [hit["_id"] for hit in found["hits"]["hits"]]


@pytest.mark.parametrize("given", GIVEN_FOR_JSON)
def test_a_mapping_declared_for_jsonb_makes_it_searchable(make: Make, stack: Stack, given: dict[str, Any]) -> None:
    nested = "extra" if given.get("type") == "nested" else ""
    assert found_red(make, stack, EXTRA, {"extra": given}, nested=nested) == ["a"]


GIVEN_ABOVE_JSON: list[dict[str, Any]] = [
    {"lines": {"properties": {"extra": {"dynamic": True}}}},
    {"lines": {"dynamic": True}},
    {"dynamic": True},
    {"dynamic": "true", "properties": {"lines": {"type": "object"}}},
]


@pytest.mark.parametrize("mapping", GIVEN_ABOVE_JSON)
def test_a_mapping_declared_above_jsonb_makes_it_searchable(make: Make, stack: Stack, mapping: dict[str, Any]) -> None:
    assert found_red(make, stack, LINES, mapping) == ["a"]


def test_jsonb_without_a_mapping_is_stored_and_not_searched(make: Make, stack: Stack) -> None:
    assert found_red(make, stack, LINES, {"lines": {"type": "object"}}) == []


# -- the trial of `syncer check`


WORDS = (Field("n", "bigint", many=False), Field("name", "text", many=False))
REFUSED: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    ({"mapping": {"name": {"type": "keywrod"}}}, "keywrod", ("mapping", "name", "type")),
    (
        {"mapping": {"properties": {"name": {"analyzer": "nonesuch"}}}},
        "nonesuch",
        ("mapping", "properties", "name", "analyzer"),
    ),
    ({"mapping": {"name": {"fields": {"x": {"type": "nope"}}}}}, "nope", ("mapping", "name", "fields", "x", "type")),
    ({"mapping": {"n": {"boost_x": 1}}}, "boost_x", ("mapping", "n", "boost_x")),
    ({"settings": {"refresh": "1s"}}, "unknown setting", ("settings", "refresh")),
    ({"settings": {"index": {"number_of_shards": 5000}}}, "1024", ("settings", "index", "number_of_shards")),
    (
        {"settings": {"default_pipeline": "nonesuch"}},
        "every document would be refused",
        ("settings", "default_pipeline"),
    ),
    ({"mapping": {"dynamik": {"type": "alias", "path": "gone"}}}, "gone", ("mapping", "dynamik", "path")),
]


def asked(stack: Stack, names: Names, *, url: str = "", **block: Any) -> list[sinks.Problem]:
    settings = Settings.model_validate({"index": names("things"), **block})
    connection = Connection.model_validate({"url": url or stack.elasticsearch})
    return trial(connection, settings, compiled(names("things"), WORDS))


def scratch(stack: Stack) -> list[str]:
    return list(call(stack, "GET", "/syncer-check-*?expand_wildcards=all"))


@pytest.mark.parametrize(("block", "why", "at"), REFUSED)
def test_a_refusal_by_the_server_is_reported_with_its_place(
    stack: Stack, names: Names, block: dict[str, Any], why: str, at: tuple[str, ...]
) -> None:
    [problem] = asked(stack, names, **block)
    assert problem.certain
    assert why in problem.why
    assert problem.block == at
    assert scratch(stack) == []


def test_an_accepted_block_leaves_no_scratch_index(stack: Stack, names: Names) -> None:
    call(stack, "PUT", f"/_ingest/pipeline/{names('there')}", {"processors": []})
    settings = {"number_of_replicas": 7, "default_pipeline": names("there"), "final_pipeline": "_none"}
    try:
        assert asked(stack, names, settings=settings, mapping={"name": {"analyzer": "standard"}}) == []
    finally:
        call(stack, "DELETE", f"/_ingest/pipeline/{names('there')}")
    assert scratch(stack) == []


def test_templates_and_names_that_prevent_the_index_are_reported(stack: Stack, names: Names) -> None:
    template = {
        "index_patterns": [names("things-*")],
        "data_stream": {},
        "template": {"settings": {"index.default_pipeline": "gone"}},
    }
    call(stack, "PUT", f"/_index_template/{names('t')}", template)
    try:
        streams, pipeline = asked(stack, names)
        assert "data stream" in streams.what
        assert "gone" in pipeline.what
        assert asked(stack, names, settings={"default_pipeline": "_none"}) == [streams]
    finally:
        call(stack, "DELETE", f"/_index_template/{names('t')}")
    call(stack, "PUT", f"/{names('things')}")
    [taken] = asked(stack, names)
    assert "is taken by an index" in taken.what


def test_a_scratch_index_left_by_a_check_is_deleted_by_the_next(stack: Stack, proxy: FaultProxy, names: Names) -> None:
    proxy.rule = lambda request: "cut" if request.method == "DELETE" else "pass"
    [left] = asked(stack, names, url=proxy.url)
    assert not left.certain and "could not be deleted" in left.what
    [name] = scratch(stack)
    call(stack, "PUT", f"/{names('syncer-check-theirs')}")
    proxy.rule = lambda request: "pass"
    assert asked(stack, names) == []
    assert scratch(stack) == [name]  # it may belong to a running check
    with closing(Connection.model_validate({"url": stack.elasticsearch}).client()) as client:
        sweep(Http(client, "", ""), older=-60)
    assert scratch(stack) == []


def test_a_missing_privilege_to_create_the_index_is_not_a_mistake_of_the_read_model(
    stack: Stack, proxy: FaultProxy, names: Names
) -> None:
    denied = b'{"error": {"type": "security_exception", "reason": "action [x] is unauthorized"}}'
    proxy.rule = lambda request: (403, denied) if request.method == "PUT" else "pass"
    [problem] = asked(stack, names, url=proxy.url)
    assert not problem.certain
    assert "could not be asked" in problem.what and "is unauthorized" in problem.why
    assert "create_index" in problem.hint and "--read-only" in problem.hint


def test_an_interrupted_check_leaves_no_scratch_index(stack: Stack, proxy: FaultProxy, names: Names) -> None:
    def interrupted(http: Http, method: str, path: str, *rest: Any) -> tuple[int, bytes]:
        found = ask(http, method, path, *rest)
        if method == "PUT":
            assert scratch(stack) != []
            raise KeyboardInterrupt
        return found

    ask = Http.ask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Http, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asked(stack, names)
    assert scratch(stack) == []


# -- single documents that are rejected


def test_the_reason_of_a_rejection_is_that_of_the_server(make: Make) -> None:
    out = make().write(Batch(1, {"a": b'{"n":"twelve"}', "b": b'{"n":{}}', "c": b"{", "d": b'{"n":1}'}, []))
    assert out.written == 1
    reasons = {rejection.id: rejection.reason for rejection in out.rejected}
    assert "failed to parse field [n] of type [long]" in reasons["a"]
    assert set(reasons) == {"a", "b", "c"}


def test_hazard_24_an_id_that_is_too_long_does_not_fail_its_batch(make: Make) -> None:
    out = make().write(Batch(1, {"x" * 513: b"{}", "я" * 257: b"{}", "ok": b"{}"}, ["y" * 600, "gone"]))
    assert (out.written, out.deleted, len(out.rejected)) == (1, 2, 2), "deletes of impossible ids succeed"
    assert "has 514 bytes, the limit of Elasticsearch is 512" in out.rejected[1].reason


def test_hazard_24_a_request_that_fails_as_a_whole_is_bisected(make: Make) -> None:
    """An empty line instead of a document: the server then takes documents for actions."""
    batch = docs(*range(50))
    batch.upserts["empty"] = b""
    out = make().write(batch)
    assert out.written == 50
    assert [rejection.id for rejection in out.rejected] == ["empty"]


def test_hazard_24_a_document_above_the_server_s_limit(make: Make) -> None:
    sink = make()
    out = sink.write(Batch(1, {"big": b'{"name":"%b"}' % (b"x" * (101 << 20)), "ok": b"{}"}, []))
    assert out.written == 1
    assert "the limit of the server is 104857600" in out.rejected[0].reason


def test_a_request_above_the_limit_of_a_proxy_is_bisected(make: Make, proxy: FaultProxy) -> None:
    proxy.rule = lambda request: (413, b"<html>too large</html>") if len(request.body) > 3000 else "pass"
    sink = make(connection={"url": proxy.url})
    batch = docs(*range(40), pad=100)
    batch.upserts["big"] = json.dumps({"name": "x" * 5000}).encode()
    out = sink.write(batch)
    assert out.written == 40
    assert out.rejected == [Rejection("big", "HTTP 413: <html>too large</html>", "HTTP 413")]


# -- server errors


def test_hazard_22_a_deleted_index_is_not_recreated(make: Make, stack: Stack) -> None:
    sink = make()
    call(stack, "DELETE", f"/{sink.index}")
    for batch in (Batch(1, {}, ["1"]), docs(1), Batch(1, {"1": b"{}"}, ["2"])):
        with pytest.raises(Fatal, match="the index is missing") as caught:
            sink.write(batch)
        assert caught.value.hint == f"syncer resync {sink.alias}"
    with pytest.raises(Fatal, match="the index is missing"):
        sink.read(["1"])
    with pytest.raises(Fatal, match="the index is missing"):
        list(sink.ids())
    found = call(stack, "GET", f"/_cat/indices/{sink.alias}*?format=json&expand_wildcards=all")
    assert found == []


def test_hazard_22_a_lost_write_alias(make: Make, stack: Stack) -> None:
    sink = make()
    call(stack, "DELETE", f"/{sink.index}/_alias/{sink.write_alias}")
    with pytest.raises(Fatal, match="the index is missing"):
        sink.write(docs(1))


def test_writes_are_retried_while_the_disk_is_full(make: Make, stack: Stack) -> None:
    sink = make()
    with setting(stack, f"/{sink.index}/_settings", "index.blocks.read_only_allow_delete", True):
        out = sink.write(docs(1, 2))
        assert (out.retry, out.rejected) == (["1", "2"], [])
        assert "free disk space" in out.retry_reason
    assert sink.write(docs(1, 2)).written == 2


def test_writes_are_retried_while_the_index_is_closed(make: Make, stack: Stack) -> None:
    sink = make()
    call(stack, "POST", f"/{sink.index}/_close")
    out = sink.write(docs(1))
    assert out.retry == ["1"]
    assert "closed" in out.retry_reason


def test_requests_shrink_when_too_many_bytes_are_in_flight(make: Make, stack: Stack) -> None:
    sink = make()
    limit = "network.breaker.inflight_requests.limit"
    with setting(stack, "/_cluster/settings", limit, "200kb"):
        for _ in range(3):  # the server counts a request's bytes twice
            with pytest.raises(Retry) as caught:
                sink.write(docs(*range(500), pad=1000))
            assert "circuit_breaking_exception" in caught.value.why
        out = sink.write(docs(*range(500), pad=1000))
        assert (out.written, out.retry) == (500, [])
        assert out.request_bytes < 200_000


def _busy(request: Request) -> bytes:
    """Returns an answer with status 429 for every item."""
    item = b'{"index":{"status":429,"error":{"type":"x","reason":"y"}}}'
    return b'{"errors":true,"items":[%b]}' % b",".join([item] * request.body.count(b'"_id"'))


def _late() -> str:
    time.sleep(1.5)
    return "cut"


TOO_MUCH: dict[str, Callable[[Request], Any]] = {
    "429": lambda request: (429, b"{}"),
    "503": lambda request: (503, b"busy"),
    "413": lambda request: (413, b"too large"),
    "429 of items": lambda request: (200, _busy(request)),
    "time-out": lambda request: _late(),
}


@pytest.mark.parametrize("how", TOO_MUCH)
def test_requests_shrink_until_the_server_accepts_them(make: Make, proxy: FaultProxy, how: str) -> None:
    sink = make(connection={"url": proxy.url, "timeout": "1s"})
    proxy.rule = lambda request: TOO_MUCH[how](request) if len(request.body) > 100_000 else "pass"
    left, at = list(range(800)), 0
    while left:
        at += 1
        try:
            out = sink.write(docs(*left, at=at, pad=1000))
        except Retry:
            continue
        left = [int(id) for id in out.retry]
    assert out.request_bytes < 200_000
    assert sink.count() == 800
    proxy.rule = lambda request: "pass"
    sizes = [sink.write(docs(*range(600), at=at + n, pad=1000)).request_bytes for n in range(1, 4)]
    assert sizes[-1] > sizes[0]


def test_the_rest_of_a_batch_is_not_sent_after_the_timeout(make: Make, proxy: FaultProxy) -> None:
    sink = make(connection={"url": proxy.url, "max_bulk_bytes": "10kB"})

    def slow(request: Request) -> Any:
        time.sleep(1.1)
        return "pass"

    proxy.rule = slow
    out = sink.write(docs(*range(30), pad=1000), 1.0)
    assert 0 < out.written < 12
    assert out.written + len(out.retry) == 30
    assert "took longer than" in out.retry_reason and "pipeline.max_age" in out.retry_reason


def test_the_server_may_not_hold_a_write_after_the_timeout(make: Make, proxy: FaultProxy) -> None:
    """Its default is a minute. A shard that is reopened in that time may have forgotten a delete."""
    make(connection={"url": proxy.url}).write(docs(1), 2.0)
    [request] = [request for request in proxy.seen if "_bulk" in request.path]
    [timeout] = parse_qs(urlsplit(request.path).query)["timeout"]
    assert timeout.endswith("ms") and 0 < int(timeout.removesuffix("ms")) <= 2000


def test_items_with_status_429_are_retried_and_the_others_are_not(make: Make, proxy: FaultProxy) -> None:
    error = {
        "type": "es_rejected_execution_exception",
        "reason": "rejected execution of coordinating operation",
    }
    items = [{"index": {"status": 201}}, {"index": {"status": 429, "error": error}}]
    sink = make(connection={"url": proxy.url})
    proxy.rule = lambda request: (200, json.dumps({"errors": True, "items": items}).encode())
    out = sink.write(docs(1, 2))
    assert (out.written, out.retry) == (1, ["2"])
    assert out.retry_reason.startswith("es_rejected_execution_exception")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_or_broken_server_is_retried(make: Make, proxy: FaultProxy, status: int) -> None:
    sink = make(connection={"url": proxy.url})
    proxy.rule = lambda request: (status, b"upstream is down")
    with pytest.raises(Retry, match="upstream is down"):
        sink.write(docs(1))


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_credentials_are_fatal(make: Make, proxy: FaultProxy, status: int) -> None:
    sink = make(connection={"url": proxy.url})
    body = {"error": {"type": "security_exception", "reason": "unable to authenticate user [me]"}}
    proxy.rule = lambda request: (status, json.dumps(body).encode())
    for act in (sink.prepare, lambda: sink.write(docs(1))):
        with pytest.raises(Fatal, match="unable to authenticate") as caught:
            act()
        assert "elasticsearch.username" in caught.value.hint


def test_preflight_reports_obstacles_and_changes_nothing(stack: Stack, proxy: FaultProxy, names: Names) -> None:
    settings = [
        Settings.model_validate({"index": names("things")}),
        Settings.model_validate({"index": names("others")}),
    ]
    assert preflight(Connection.model_validate({"url": stack.elasticsearch}), settings) == []  # without security
    assert call(stack, "GET", f"/{names('*')}") == {}

    def privileges(**given: bool) -> bytes:
        held = {"manage": True, "read": True, "write": True}
        index = {names("things"): held, f"{names('things')}-*": held | given}
        return json.dumps({"cluster": {"monitor": not given}, "index": index}).encode()

    connection = Connection.model_validate({"url": proxy.url})
    proxy.rule = lambda request: (200, privileges())
    assert preflight(connection, settings) == []
    asked = json.loads(proxy.seen[-1].body)["index"][0]["names"]
    assert set(asked) == {names("things"), names("things-*"), names("others"), names("others-*")}
    proxy.rule = lambda request: (200, privileges(manage=False))
    [found] = preflight(connection, settings)
    assert found.why == f"monitor of the cluster; manage of the index {names('things')}-*"
    proxy.rule = lambda request: (401, b'{"error": {"type": "security_exception", "reason": "who?"}}')
    [found] = preflight(connection, settings)
    assert isinstance(found, Fatal) and "elasticsearch.username" in found.hint
    [found] = preflight(Connection.model_validate({"url": "http://127.0.0.1:1"}), settings)
    assert isinstance(found, Retry) and found.where == "Elasticsearch at http://127.0.0.1:1"


def test_missing_privileges_to_publish_watermarks_are_reported(stack: Stack, proxy: FaultProxy, names: Names) -> None:
    settings = [Settings.model_validate({"index": names("things")})]
    assert publishing_problems(Connection.model_validate({"url": stack.elasticsearch}), settings) == []
    held = {"create_index": True, "index": True, "read": True}
    connection = Connection.model_validate({"url": proxy.url})
    proxy.rule = lambda request: (200, json.dumps({"index": {"syncer-watermarks": held}}).encode())
    assert publishing_problems(connection, settings) == []
    held["index"] = False
    [found] = publishing_problems(connection, settings)
    assert found.why == "the privileges index of the index syncer-watermarks are missing"
    assert "freshness.publish_interval: 0" in found.hint


def test_a_refresh_that_a_shard_missed_is_retried(make: Make, proxy: FaultProxy) -> None:
    sink = make(connection={"url": proxy.url})
    assert isinstance(sink, SearchableSink)
    sink.make_searchable(5.0)
    proxy.rule = lambda request: (200, b'{"_shards": {"total": 2, "successful": 1, "failed": 1}}')
    with pytest.raises(Retry, match="a shard could not be refreshed"):
        sink.make_searchable(5.0)


def test_an_unreachable_server_is_retried(make: Make) -> None:
    sink = make(prepare=False, connection={"url": "http://127.0.0.1:1"})
    for act in (sink.prepare, lambda: sink.write(docs(1)), lambda: sink.read(["1"])):
        with pytest.raises(Retry, match="does not answer"):
            act()


def test_a_request_that_times_out_is_retried(make: Make, proxy: FaultProxy) -> None:
    sink = make(connection={"url": proxy.url, "timeout": "300ms"})

    def rule(request: Request) -> Any:
        time.sleep(1)
        return "cut"

    proxy.rule = rule
    with pytest.raises(Retry, match="timed out"):
        sink.write(docs(1))


def test_a_lost_answer_to_a_write_is_not_sent_again(make: Make, proxy: FaultProxy) -> None:
    sink = make(connection={"url": proxy.url})
    proxy.rule = lambda request: "cut after"
    with pytest.raises(Retry, match="does not answer"):
        sink.write(docs(1, 2, at=5))
    proxy.rule = lambda request: "pass"
    assert sum("_bulk" in request.path for request in proxy.seen) == 1  # the sink itself never sends it twice
    assert sink.write(docs(1, 2, at=5)).stale == 2


def test_a_cut_connection_leaves_the_rest_of_a_batch_to_be_rendered_again(make: Make, proxy: FaultProxy) -> None:
    sink = make(connection={"url": proxy.url, "max_bulk_bytes": "4kB"})
    before = len(proxy.seen)

    def rule(request: Request) -> Any:
        return "pass" if len(proxy.seen) - before <= 2 else "cut"

    proxy.rule = rule
    batch = docs(*range(30), pad=1000)
    out = sink.write(batch)
    assert len(proxy.seen) - before == 3
    assert 0 < out.written == 30 - len(out.retry)
    assert "does not answer" in out.retry_reason
    proxy.rule = lambda request: "pass"
    assert sink.read(list(batch.upserts)).keys() == set(batch.upserts) - set(out.retry)


def test_requests_are_split_by_bytes(make: Make, proxy: FaultProxy) -> None:
    sink = make(connection={"url": proxy.url, "max_bulk_bytes": "10kB"})
    assert sink.write(docs(*range(100), pad=1000)).written == 100
    bulks = [request for request in proxy.seen if "_bulk" in request.path]
    assert len(bulks) > 10
    assert max(len(request.body) for request in bulks) <= 10_000
