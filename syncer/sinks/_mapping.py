"""Elasticsearch mappings: derived from a document's fields, merged with a given one, and judged.

Pure functions over plain JSON; `elasticsearch.py` sends the result. Elasticsearch never guesses a mapping
here (`dynamic: false`): what is not mapped is kept in the document and not searchable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from syncer.declaration.compile import Field

Json = dict[str, Any]

_STRINGS = frozenset(
    "text keyword wildcard constant_keyword match_only_text search_as_you_type annotated_text".split()
)
_INTEGERS = {"byte": 8, "short": 16, "integer": 32, "long": 64, "unsigned_long": 63}
_FLOATS = frozenset("half_float float double scaled_float".split())
_NUMBERS = frozenset(_INTEGERS) | _FLOATS
_DATES = frozenset(("date", "date_nanos"))
_PARSED = frozenset("ip geo_point geo_shape point shape version completion semantic_text".split()) | _DATES
_OBJECTS = frozenset(
    "object nested flattened passthrough geo_point geo_shape point shape completion join "
    "integer_range long_range float_range double_range date_range ip_range".split()
)
_KNOWN = _STRINGS | _NUMBERS | _PARSED | _OBJECTS | {"boolean", "binary"}

_TEXT: Json = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 1024}}}
_KEYWORD: Json = {"type": "keyword", "ignore_above": 1024}
_OPAQUE: Json = {"type": "object", "enabled": False}
# PostgreSQL has values that these cannot index (infinity, NaN, years beyond 9999): the document is kept
# whole, that one field is not searchable.
_DOUBLE: Json = {"type": "double", "ignore_malformed": True}
_DATE: Json = {"type": "date", "ignore_malformed": True}

# PostgreSQL type (`Field.type`) → mapping, and the Elasticsearch types that can hold all its values.
# Types that are not listed are strings in the document.
_TYPES: Mapping[str, tuple[Json, frozenset[str]]] = {
    # `long` for all integers, so that a column can be widened and the index still holds it
    "smallint": ({"type": "long"}, _NUMBERS | _STRINGS | _DATES),
    "integer": ({"type": "long"}, _NUMBERS | _STRINGS | _DATES),
    "bigint": ({"type": "long"}, _NUMBERS | _STRINGS | _DATES),
    "oid": ({"type": "long"}, _NUMBERS | _STRINGS),
    "numeric": (_DOUBLE, _NUMBERS | _STRINGS),
    "real": (_DOUBLE, _NUMBERS | _STRINGS),
    "double precision": (_DOUBLE, _NUMBERS | _STRINGS),
    "boolean": ({"type": "boolean"}, _STRINGS | {"boolean"}),
    "date": (_DATE, _DATES | _STRINGS),
    "timestamp without time zone": (_DATE, _DATES | _STRINGS),
    "timestamp with time zone": (_DATE, _DATES | _STRINGS),
    "text": (_TEXT, _STRINGS | _PARSED),
    "character varying": (_TEXT, _STRINGS | _PARSED),
    "citext": (_TEXT, _STRINGS | _PARSED),
    "uuid": ({"type": "keyword"}, _STRINGS),
    "enum": ({"type": "keyword"}, _STRINGS),
    "inet": (_KEYWORD, _STRINGS | {"ip"}),
    "bytea": (_KEYWORD, _STRINGS | {"binary"}),
    "object": ({}, _OBJECTS),
}
_OTHER: tuple[Json, frozenset[str]] = (_KEYWORD, _STRINGS | _PARSED)
_ANYTHING = frozenset(("json", "jsonb", "unknown", "composite", "array"))
_FRACTIONS = frozenset(("numeric", "real", "double precision"))
_BITS = {"smallint": 16, "integer": 32, "bigint": 64, "oid": 33}


def derive(fields: Sequence[Field]) -> Json:
    """The `properties` for these fields. A list is mapped as one of its values (Elasticsearch, "Arrays")."""
    return {field.name: _derive(field) for field in fields}


def _derive(field: Field) -> Json:
    if field.fields:
        return {"properties": derive(field.fields)}
    if field.type in _ANYTHING or field.type == "object":
        return dict(_OPAQUE)
    return dict(_TYPES.get(field.type, _OTHER)[0])


def mapping(given: Mapping[str, Any], fields: Sequence[Field]) -> Json:
    """The index's whole mapping: what is derived from `fields`, with `given` merged over it.

    given: a mapping as Elasticsearch takes it (with `properties`), or the properties alone.
    """
    top = body(given)
    properties = _merge(derive(fields), top.pop("properties"))
    return {"dynamic": False, **top, "properties": properties}


def body(given: Mapping[str, Any]) -> Json:
    """A given mapping in its long form, with `properties`."""
    long = isinstance(given.get("properties"), Mapping) and "type" not in given["properties"]
    return dict(given) if long else {"properties": dict(given)}


def _merge(derived: Json, given: Mapping[str, Any]) -> Json:
    """Deep merge; `given` wins. A field given another type than the derived one keeps nothing of that."""
    out = dict(derived)
    for name, value in given.items():
        old = derived.get(name)
        if not isinstance(value, Mapping):
            out[name] = value
        elif not isinstance(old, Mapping) or not _same_kind(old, value):
            out[name] = dict(value)
        else:
            out[name] = _merge(dict(old), value)
    return out


def _same_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether merging makes sense: no other type is given; objects and `nested` share their properties."""
    given = new.get("type")
    if not isinstance(given, str):  # not a mapping with a type, or `properties` themselves
        return not (old.get("enabled") is False and "properties" in new)
    if "properties" in old:
        return given in ("object", "nested") and new.get("enabled", True) is not False
    return given == old.get("type")


def problems(given: Mapping[str, Any], fields: Sequence[Field]) -> list[str]:
    """What is wrong with a given mapping, one sentence each: types that cannot hold a field's values, fields
    that the document does not have. Empty when it is fine. Unknown types (of plug-ins) are not judged."""
    top = body(given)
    found = []
    for name, why in (
        ("_source", "the documents' text is needed to verify them"),
        ("_meta", "it records what the index was built from"),
        ("_routing", "documents are found by their id alone"),
    ):
        if name in top:
            found.append(f"{name}: cannot be set; {why}")
    properties = top["properties"]
    copied = frozenset(_copy_targets(properties))
    return found + list(_problems(properties, fields, "", copied))


def _problems(
    given: Mapping[str, Any], fields: Sequence[Field], path: str, free: frozenset[str]
) -> Iterator[str]:
    known = {field.name: field for field in fields}
    for name, spec in given.items():
        full = path + name
        if not isinstance(spec, Mapping):
            yield f"{full}: a field's mapping is an object such as {{type: keyword}}, not {spec!r}"
        elif name in known:
            yield from _judge(full, spec, known[name], free)
        elif full not in free and spec.get("type") not in ("alias", "constant_keyword", "join"):
            near = difflib.get_close_matches(name, known, 1)
            yield f"{full}: the document has no such field" + (f"; did you mean {near[0]}?" if near else "")


def _judge(path: str, spec: Mapping[str, Any], field: Field, free: frozenset[str]) -> Iterator[str]:
    given = spec.get("type", "object" if "properties" in spec else None)
    nested = spec.get("properties", {})
    if given in ("object", "nested", None) and field.fields:
        yield from _problems(nested, field.fields, path + ".", free)
        return
    lenient = spec.get("enabled") is False or spec.get("ignore_malformed") is True
    if given is None or given not in _KNOWN or field.type in _ANYTHING or lenient:
        return
    what = "an object" if field.type == "object" else f"{field.type} values"
    if given not in _TYPES.get(field.type, _OTHER)[1]:
        yield f"{path}: mapped as {given}, which cannot hold {what}"
    elif given in _INTEGERS and _INTEGERS[given] < _BITS.get(field.type, 0):
        yield f"{path}: mapped as {given}, which is too narrow for {what}"


def outgrown(given: Mapping[str, Any], actual: Mapping[str, Any], fields: Sequence[Field]) -> list[str]:
    """What an index that was made for other column types cannot hold, or not search, of these fields: one
    sentence each. Empty when it fits. given: the declared mapping. actual: the `properties` of the index."""
    wanted = mapping(given, fields)["properties"]
    found = dict.fromkeys(problems(given, fields))
    return list(found | dict.fromkeys(_outgrown(wanted, actual, fields, "")))


def _outgrown(
    wanted: Mapping[str, Any], actual: Mapping[str, Any], fields: Sequence[Field], path: str
) -> Iterator[str]:
    for field in fields:
        full, want, has = path + field.name, wanted[field.name], actual.get(field.name, {})
        if "properties" in want and "properties" in has:
            yield from _outgrown(want["properties"], has["properties"], field.fields, full + ".")
            continue
        kind, searched = _kind(has), has.get("enabled") is not False
        if (kind, searched) == (_kind(want), want.get("enabled") is not False) or kind not in _KNOWN:
            continue
        if not searched:
            yield f"{full}: is not indexed, so its {field.type} values cannot be searched"
        elif field.type in _ANYTHING or kind not in _kept(field.type):
            yield f"{full}: mapped as {kind}, which cannot hold all {field.type} values"
        elif kind in _INTEGERS and _INTEGERS[kind] < _BITS.get(field.type, 0):
            yield f"{full}: mapped as {kind}, which is too narrow for {field.type} values"


def _kept(type: str) -> frozenset[str]:
    """The Elasticsearch types that take all values of a type and can search them, whether or not somebody
    has chosen them for it."""
    fractions = frozenset(_INTEGERS) if type in _FRACTIONS else frozenset[str]()
    return _TYPES.get(type, _OTHER)[1] - _PARSED - fractions


def _kind(spec: Mapping[str, Any]) -> str:
    return str(spec.get("type", "object"))


def _copy_targets(properties: Mapping[str, Any]) -> Iterator[str]:
    for spec in properties.values():
        if isinstance(spec, Mapping):
            target = spec.get("copy_to", ())
            yield from (target,) if isinstance(target, str) else target
            yield from _copy_targets(spec.get("properties", {}))


_OURS = {
    "index.gc_deletes": "a delete has to be remembered for longer than any write can take",
    "index.translog.durability": "what is acknowledged has to be on disk",
    "index.disable_sequence_numbers": "they tell what was written when deletes were forgotten",
}


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the index: the given ones and ours."""
    return _flat(given) | {"index.gc_deletes": "1h"}


def setting_problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with given settings, one sentence each; empty when nothing is."""
    found = _flat(given)
    return [f"{name}: cannot be set; {why}" for name, why in _OURS.items() if name in found]


def _flat(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in their dotted form, beginning with `index.`, so that no two spellings meet."""
    out: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            full = prefix + name
            out[full if full.startswith("index.") else f"index.{full}"] = value
    return out
