"""Mistakes in a sink's block that are reported before anything runs, and derived mappings."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from syncer import sinks
from syncer.config.installed_sinks import sink_modules
from syncer.declaration.compile import Field
from syncer.errors import Fatal
from syncer.sinks.elasticsearch import mapping
from syncer.sinks.elasticsearch.client import error_of
from syncer.sinks.problem import locate
from tests.contracts.sinks import FIELDS, compiled

LINE = (Field("sku", "text", many=False), Field("count", "integer", many=False))
ALL = (
    *FIELDS,
    Field("tags", "text", many=True),
    Field("placed_at", "timestamp with time zone", many=False),
    Field("status", "enum", many=False),
    Field("extra", "jsonb", many=False),
    Field("odd", "unknown", many=False),
    Field("lines", "object", many=True, fields=LINE),
)


def refused(kind: str, settings: dict[str, Any], connection: dict[str, Any] | None = None) -> Fatal:
    model = compiled("m", ALL)
    with pytest.raises(Fatal) as caught:
        sinks.build(kind, settings, model=model, connection=connection or {}, where="orders.yaml:7")
    return caught.value


def test_the_kinds_of_sinks() -> None:
    assert list(sink_modules()) == ["elasticsearch", "kafka", "memory", "postgres", "redis"]


def test_every_setting_is_described() -> None:
    for kind in sink_modules():
        module = sinks.find(kind)
        for schema in (module.Settings, module.Connection):
            assert issubclass(schema, BaseModel)
            assert schema.__doc__
            assert schema.model_config["extra"] == "forbid"
            assert all(field.description for field in schema.model_fields.values())
            assert schema.model_json_schema()["additionalProperties"] is False


def test_an_unknown_kind_is_refused() -> None:
    error = refused("elasticserch", {})
    assert (error.where, error.hint) == ("orders.yaml:7", "did you mean elasticsearch?")


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("elasticsearch", {"indx": "a"}, "unknown key 'indx'", "did you mean index?"),
    ("elasticsearch", {}, "the key 'index' is missing", ""),
    ("elasticsearch", {"index": "Orders"}, "index: must be in lower case", ""),
    ("elasticsearch", {"index": "-orders"}, "index: must be in lower case", ""),
    ("redis", {"key": "orders"}, "exactly once", ""),
    ("redis", {"key": "{id}:{id}"}, "exactly once", ""),
    ("redis", {"key": "{id}"}, "must begin with fixed text", ""),
    ("redis", {"key": "syncer:{id}"}, "are reserved for the syncer", ""),
    (
        "redis",
        {"key": "a:{id}", "expire": "soon"},
        "expire: must be a duration such as 30s",
        "",
    ),
    ("redis", {"key": "a:{id}", "expire": 0}, "expire: must be greater than 0", ""),
    ("redis", {"key": "a:{id}", "expire": "40000d"}, "expire: 3456000000 seconds are too long", "100 years"),
    ("redis", {"key": "a:{id}", "format": "xml"}, "format: must be 'json' or 'hash'", ""),
    ("redis", {"key": "a:{id}", "format": "hash"}, "a hash cannot hold tags, which is a list", ""),
    ("kafka", {}, "the key 'topic' is missing", ""),
    ("kafka", {"topic": "a b"}, "topic: must be 1 to 240 letters", ""),
    ("kafka", {"topic": ".."}, "topic: must be 1 to 240 letters", ""),
    ("kafka", {"topic": "x" * 241}, "topic: must be 1 to 240 letters", ""),
    ("kafka", {"topic": "a", "partitions": 0}, "partitions: must be greater than 0", ""),
    ("kafka", {"topic": "a", "compaction_lag": "10m"}, "compaction_lag: must be at least 1h (3,600 seconds)", ""),
    ("kafka", {"topic": "a", "index": "b"}, "unknown key 'index'", ""),
    ("memory", {"index": "a"}, "unknown key 'index'", ""),
    ("redis", {"key": "a:{id}", "tombstone": "1m"}, "tombstone: must be at least 30m (1,800 seconds)", ""),
    ("postgres", {"table": "a.b", "tombstone": "1m"}, "tombstone: must be at least 30m (1,800 seconds)", ""),
    (
        "redis",
        {"key": "a:{id}", "indexes": [{"set": {"key": "b:{x}"}}, {"sortedset": {}}]},
        "indexes.1: unknown key 'sortedset'",
        "did you mean sorted_set?",
    ),
    ("redis", {"key": "a:{id}", "indexes": [{"set": {"ky": "b"}}]}, "indexes.0.set: unknown key 'ky'", "mean key?"),
    ("redis", {"key": "a:{id}", "indexes": [{"set": {}}]}, "indexes.0.set: the key 'key' is missing", ""),
    ("redis", {"key": "a:{id}", "indexes": "b"}, "indexes: must be a list", ""),
    ("postgres", {"table": "a.b", "indexes": ["x"]}, "indexes.0: must be a mapping", ""),
]


@pytest.mark.parametrize(("kind", "settings", "what", "hint"), WRONG)
def test_a_mistake_in_a_block_is_reported(kind: str, settings: dict[str, Any], what: str, hint: str) -> None:
    error = refused(kind, settings)
    assert what in error.what
    assert error.where == f"orders.yaml:7: {kind}"
    assert hint in error.hint


@pytest.mark.parametrize("url", ["es:9200", "http://es", "ftp://es:9200"])
def test_a_wrong_address_is_refused(url: str) -> None:
    error = refused("elasticsearch", {"index": "a"}, {"url": url})
    assert error.where == "configuration: elasticsearch"
    assert "url: it has to be http://host:port" in error.what


def test_credentials_are_taken_out_of_the_address() -> None:
    for kind, url in (
        ("elasticsearch", "https://me:s%40fe@es:9200"),
        ("redis", "rediss://me:s%40fe@r:6379/1"),
    ):
        link: Any = sinks.parse(sinks.find(kind).Connection, {"url": url}, where="")
        assert link.url == url.replace("me:s%40fe@", "")
        assert (link.username, link.password.get_secret_value()) == ("me", "s@fe")
        assert "s@fe" not in repr(link)


def test_fields_have_a_derived_mapping() -> None:
    derived = mapping.mapping({}, ALL)
    text = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 1024}}}
    assert derived["dynamic"] is False
    assert derived["properties"] == {
        "n": {"type": "long"},
        "exact": {"type": "double", "ignore_malformed": True},
        "name": text,
        "on": {"type": "boolean"},
        "tags": text,
        "placed_at": {"type": "date", "ignore_malformed": True},
        "status": {"type": "keyword"},
        "extra": {"type": "object", "enabled": False},
        "odd": {"type": "object", "enabled": False},
        "lines": {"properties": {"sku": text, "count": {"type": "long"}}},
    }


def test_shapes_and_hstore_have_a_derived_mapping() -> None:
    """The test build of Elasticsearch has no geo_shape, so no other test covers it."""
    fields = [Field(name, name, many=False) for name in ("geojson point", "geojson", "hstore")]
    given = {"hstore": {"dynamic": True}, "geojson": {"type": "object", "enabled": False}}
    assert mapping.mapping(given, fields)["properties"] == {
        "geojson point": {"type": "geo_point", "ignore_malformed": True},
        "geojson": {"type": "object", "enabled": False},
        "hstore": {"type": "object", "dynamic": True},
    }
    assert mapping.problems(given, fields) == []
    assert mapping.derive(fields) == {
        "geojson point": {"type": "geo_point", "ignore_malformed": True},
        "geojson": {"type": "geo_shape", "ignore_malformed": True},
        "hstore": {"type": "flattened", "ignore_above": 1024},
    }


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["_id"], "a document cannot have the field _id"),
        (["_source.x"], "a document cannot have the field _source.x"),
        ([" "], "a document cannot have the field ' '"),
        (["a..b"], "a document cannot have the field 'a..b'"),
        (["a", "a.b"], "the fields a and a.b exclude each other"),
        (["a.b.c", "a.b"], "the fields a.b and a.b.c exclude each other"),
    ],
)
def test_invalid_field_names_are_refused(names: list[str], what: str) -> None:
    [found] = mapping.problems({}, [Field(name, "text", many=False) for name in names])
    assert found.what == what
    assert len(found.field) == 1
    inner = Field("o", "object", False, tuple(Field(name, "text", many=False) for name in names))
    nested = mapping.problems({}, [inner])
    assert [problem.field for problem in nested] == ([] if names[0][0] == "_" else [("o", *found.field)])


def test_valid_field_names_are_accepted() -> None:
    fields = [
        Field("_ids", "text", many=False),
        Field("a.b", "text", many=False),
        Field("a.c", "text", many=False),
        Field("a", "jsonb", many=False),
        Field("o", "object", False, (Field("_id", "text", many=False),)),
    ]
    assert mapping.problems({}, fields) == []


def test_a_mistake_has_its_place_in_the_block() -> None:
    [found] = mapping.problems({"properties": {"lines": {"properties": {"skuu": {"type": "text"}}}}}, ALL)
    assert found.block == ("mapping", "properties", "lines", "properties", "skuu")
    block = {
        "mapping": {"a": {"type": "x"}, "b": {"analyzer": "y"}},
        "settings": {"index": {"refresh": "1s"}},
    }
    assert locate(block, ["b", "y"]) == ("mapping", "b", "analyzer")
    assert locate(block, ["index.refresh"]) == ("settings", "index", "refresh")
    assert locate(block, ["nowhere"]) == ()


def test_a_declared_mapping_wins() -> None:
    given = {
        "properties": {
            "name": {"analyzer": "standard"},
            "placed_at": {"type": "keyword"},
            "extra": {"properties": {"a": {"type": "keyword"}}},
            "lines": {"type": "nested", "properties": {"sku": {"type": "keyword"}}},
        },
        "date_detection": False,
    }
    merged = mapping.mapping(given, ALL)
    properties = merged["properties"]
    assert merged["date_detection"] is False
    assert properties["name"]["analyzer"] == "standard"
    assert "keyword" in properties["name"]["fields"]
    assert properties["placed_at"] == {"type": "keyword"}  # no key of the derived mapping remains
    assert properties["extra"] == {"properties": {"a": {"type": "keyword"}}}
    assert properties["lines"] == {
        "type": "nested",
        "properties": {"sku": {"type": "keyword"}, "count": {"type": "long"}},
    }
    assert properties["n"] == {"type": "long"}
    assert mapping.problems(given, ALL) == []


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"exact": {"type": "boolean"}}, "exact: mapped as boolean, which cannot hold numeric values"),
    ({"lines": {"type": "keyword"}}, "lines: mapped as keyword, which cannot hold an object"),
    ({"n": {"type": "integer"}}, "n: mapped as integer, which is too narrow for bigint values"),
    ({"name": {"type": "long"}}, "name: mapped as long, which cannot hold text values"),
    ({"on": {"type": "date"}}, "on: mapped as date, which cannot hold boolean values"),
    ({"status": {"type": "integer"}}, "status: mapped as integer, which cannot hold enum values"),
    ({"name": {"type": "object"}}, "name: mapped as object, which cannot hold text"),
    (
        {"name": {"properties": {"x": {"type": "text"}}}},
        "name: mapped as object, which cannot hold text",
    ),
    ({"statsu": {"type": "keyword"}}, "statsu: the document has no such field; did you mean status?"),
    (
        {"lines": {"properties": {"skuu": {"type": "text"}}}},
        "lines.skuu: the document has no such field",
    ),
    (
        {"lines": {"properties": {"count": {"type": "byte"}}}},
        "lines.count: mapped as byte, which is too",
    ),
    ({"name": "keyword"}, "name: a field's mapping is an object"),
    ({"properties": {}, "_source": {"enabled": False}}, "_source: cannot be set"),
]


@pytest.mark.parametrize(("given", "problem"), PROBLEMS)
def test_mappings_that_cannot_hold_the_values_are_refused(given: dict[str, Any], problem: str) -> None:
    [found] = mapping.problems(given, ALL)
    assert found.what.removeprefix("mapping.").startswith(problem)
    assert refused("elasticsearch", {"index": "a", "mapping": given}).what == found.what


FINE: list[dict[str, Any]] = [
    {},
    {"n": {"type": "keyword"}, "exact": {"type": "scaled_float", "scaling_factor": 100}},
    {"name": {"type": "long", "ignore_malformed": True}, "tags": {"type": "keyword"}},
    {"placed_at": {"type": "date_nanos"}, "status": {"type": "wildcard"}},
    {"extra": {"type": "flattened"}, "odd": {"type": "geo_point"}},
    {"name": {"copy_to": ["everything"]}, "everything": {"type": "text"}},
    {"lines": {"type": "object", "enabled": False}},
    {"name": {"type": "plug_in_type"}, "other_name": {"type": "alias", "path": "name"}},
]


@pytest.mark.parametrize("given", FINE)
def test_suitable_mappings_are_accepted(given: dict[str, Any]) -> None:
    assert mapping.problems(given, ALL) == []


LATER: list[tuple[str, dict[str, Any], str, str]] = [
    ("smallint", {}, "bigint", ""),
    ("integer", {}, "numeric", "mapped as long, which cannot hold all numeric values"),
    ("integer", {}, "text", "mapped as long, which cannot hold all text values"),
    ("integer", {"x": {"type": "integer"}}, "bigint", "mapped as integer, which is too narrow for bigint"),
    ("integer", {"x": {"type": "keyword"}}, "text", ""),
    ("character varying", {}, "text", ""),
    ("numeric", {}, "double precision", ""),
    ("date", {}, "timestamp with time zone", ""),
    ("date", {}, "text", "mapped as date, which cannot hold all text values"),
    ("uuid", {}, "text", ""),
    ("enum", {}, "text", ""),
    ("text", {}, "jsonb", "mapped as text, which cannot hold all jsonb values"),
    ("jsonb", {}, "text", "is not indexed, so its text values cannot be searched"),
    ("jsonb", {}, "json", ""),
    ("text", {"x": {"type": "long", "ignore_malformed": True}}, "character varying", ""),
]


@pytest.mark.parametrize(("was", "given", "type", "reported"), LATER)
def test_an_index_reports_columns_that_it_cannot_hold_after_an_alteration(
    was: str, given: dict[str, Any], type: str, reported: str
) -> None:
    """Holds for fields of objects too. A declared mapping that the index already has is in order."""
    before, after = Field("x", was, many=False), Field("x", type, many=False)
    for fields, wider, path in (
        ((before,), (after,), "x"),
        ((Field("o", "object", False, (before,)),), (Field("o", "object", False, (after,)),), "o.x"),
    ):
        mapped = given if path == "x" or not given else {"o": {"properties": given}}
        actual = mapping.mapping(mapped, fields)["properties"]
        assert mapping.outgrown(mapped, actual, fields) == []
        found = mapping.outgrown(mapped, actual, wider)
        assert [text.split(" values")[0] for text in found] == (
            [f"{path}: {reported}".split(" values")[0]] if reported else []
        )


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"null", b'"text"', b'{"error":null}', b'{"error":{}}'])
def test_an_answer_that_is_not_of_elasticsearch_has_the_default_type(raw: bytes) -> None:
    kind, _ = error_of(raw, "HTTP 502")
    assert kind == "HTTP 502"


@pytest.mark.parametrize(
    "settings",
    [
        {"gc_deletes": "1s"},
        {"disable_sequence_numbers": True},
        {"index": {"translog": {"durability": "async"}}},
    ],
)
def test_hazard_21_settings_that_would_lose_deletes_are_refused(settings: dict[str, object]) -> None:
    block = {"index": "things", "settings": settings}
    [found] = sinks.check("elasticsearch", block, ALL)
    assert "cannot be set; " in found.what
