"""Derives the mapping of an index from a document's fields. Checks the declared mapping and merges it over that.

Pure functions over plain JSON. Elasticsearch does not guess mappings here (`dynamic: false`): a value without a
mapping is stored in the document and cannot be searched. docs/types.md has the derived mapping of each type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from syncer.declaration.compile import Field
from syncer.declaration.names import near
from syncer.sinks.problem import Problem

Json = dict[str, Any]

_STRINGS = frozenset("text keyword wildcard constant_keyword match_only_text search_as_you_type annotated_text".split())
_INTEGERS = {"byte": 8, "short": 16, "integer": 32, "long": 64, "unsigned_long": 63}
_FLOATS = frozenset("half_float float double scaled_float".split())
_NUMBERS = frozenset(_INTEGERS) | _FLOATS
_DATES = frozenset(("date", "date_nanos"))
_PARSED = frozenset("ip geo_point geo_shape point shape version completion semantic_text".split()) | _DATES
_PLAIN_OBJECTS = frozenset("object nested flattened passthrough".split())
_OBJECTS = _PLAIN_OBJECTS | frozenset(
    "geo_point geo_shape point shape completion join "
    "integer_range long_range float_range double_range date_range ip_range".split()
)
_KNOWN = _STRINGS | _NUMBERS | _PARSED | _OBJECTS | {"boolean", "binary"}

_TEXT: Json = {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 1024}}}
_KEYWORD: Json = {"type": "keyword", "ignore_above": 1024}
_OPAQUE: Json = {"type": "object", "enabled": False}
# PostgreSQL has values that these types cannot index: infinity, NaN, years beyond 9999. Elasticsearch then stores the
# document, and that field cannot be searched.
_DOUBLE: Json = {"type": "double", "ignore_malformed": True}
_DATE: Json = {"type": "date", "ignore_malformed": True}
# For empty shapes, and for coordinates that are not on the earth.
_GEO_POINT: Json = {"type": "geo_point", "ignore_malformed": True}
_GEO_SHAPE: Json = {"type": "geo_shape", "ignore_malformed": True}

# PostgreSQL type (`Field.type`) → derived mapping, and the Elasticsearch types that can hold all its values. Values of
# types that are not listed are strings in the document.
_TYPES: Mapping[str, tuple[Json, frozenset[str]]] = {
    # `long` for all integers: when a column is widened, the index still fits
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
    "hstore": ({"type": "flattened", "ignore_above": 1024}, _PLAIN_OBJECTS),
    "geojson point": (_GEO_POINT, _PLAIN_OBJECTS | {"geo_point", "geo_shape", "point", "shape"}),
    "geojson": (_GEO_SHAPE, _PLAIN_OBJECTS | {"geo_shape", "shape"}),
    "object": ({}, _OBJECTS),
}
_OTHER: tuple[Json, frozenset[str]] = (_KEYWORD, _STRINGS | _PARSED)
_ANYTHING = frozenset(("json", "jsonb", "unknown", "composite", "array"))
_FRACTIONS = frozenset(("numeric", "real", "double precision"))
_BITS = {"smallint": 16, "integer": 32, "bigint": 64, "oid": 33}


_TOP = frozenset("dynamic dynamic_templates date_detection numeric_detection subobjects".split())
"""Parameters of a whole mapping whose values are not objects. The mapping of a field always is one."""


def derive(fields: Sequence[Field]) -> Json:
    """Returns the `properties` for these fields. A list is mapped like one of its values (Elasticsearch, "Arrays")."""
    return _properties(fields, {}, dynamic=False)


def mapping(given: Mapping[str, Any], fields: Sequence[Field]) -> Json:
    """Returns the whole mapping of the index: derived from `fields`, with `given` merged over it.

    given: a mapping in the syntax of Elasticsearch (with `properties`), or the properties alone.
    """
    top = {"dynamic": False, **body(given)}
    return top | {"properties": _properties(fields, top["properties"], dynamic=_dynamic(top, False))}


def body(given: Mapping[str, Any]) -> Json:
    """Returns a declared mapping in its long form, with `properties`."""
    if isinstance(given.get("properties"), Mapping) and "type" not in given["properties"]:
        return dict(given)
    top = {name: value for name, value in given.items() if name in _TOP and not isinstance(value, Mapping)}
    return {**top, "properties": {name: value for name, value in given.items() if name not in top}}


def _properties(fields: Sequence[Field], given: Mapping[str, Any], *, dynamic: bool) -> Json:
    """Returns the properties of an object.

    dynamic: whether Elasticsearch adds fields without a mapping. Then Elasticsearch maps a value whose content
    PostgreSQL does not describe (jsonb).
    """
    out: Json = {}
    for field in fields:
        spec = given.get(field.name)
        if isinstance(spec, Mapping):
            out[field.name] = _merged(field, spec, dynamic=dynamic)
        elif field.fields:
            out[field.name] = {"properties": _properties(field.fields, {}, dynamic=dynamic)}
        elif not dynamic or _simple(field) != _OPAQUE:
            out[field.name] = _simple(field)
    return out | {name: spec for name, spec in given.items() if name not in out}


def _merged(field: Field, given: Mapping[str, Any], *, dynamic: bool) -> Json:
    """Returns the derived mapping of a field with a declared one over it.

    If the declared type differs from the derived one, nothing of the derived mapping is left.
    """
    if field.fields:
        if given.get("type", "object") not in ("object", "nested") or given.get("enabled", True) is False:
            return dict(given)
        below = _properties(field.fields, given.get("properties", {}), dynamic=_dynamic(given, dynamic))
        return {**given, "properties": below}
    derived = _simple(field)
    if derived == _OPAQUE:
        return dict(given) if "type" in given or "properties" in given else {"type": "object", **given}
    if "type" not in given and derived["type"] == "flattened" and given.keys() & {"properties", "dynamic"}:
        return {"type": "object", **given}
    if "properties" in given or given.get("type", derived["type"]) != derived["type"]:
        return dict(given)
    return _over(derived, given)


def _over(derived: Json, given: Mapping[str, Any]) -> Json:
    """Merges recursively; `given` wins."""
    out = {**derived, **given}
    for name, value in given.items():
        if isinstance(value, Mapping) and isinstance(derived.get(name), Mapping):
            out[name] = _over(derived[name], value)
    return out


def _simple(field: Field) -> Json:
    """Returns the derived mapping of a field without fields of its own."""
    if field.type in _ANYTHING or field.type == "object":
        return dict(_OPAQUE)
    return dict(_TYPES.get(field.type, _OTHER)[0])


def _dynamic(given: Mapping[str, Any], inherited: bool) -> bool:
    return str(given.get("dynamic", inherited)).lower() in ("true", "runtime")


def problems(given: Mapping[str, Any], fields: Sequence[Field]) -> list[Problem]:
    """Returns the mistakes of a declared mapping and of the fields' names.

    Mistakes are types that cannot hold a field's values, fields that the document does not have, and names that no
    index can have. Unknown types are left to the server.
    """
    top = body(given)
    found = []
    for name, why in (
        ("_source", "syncer verify reads it"),
        ("_meta", "it records what the index was built from"),
        ("_routing", "the syncer finds documents by their id alone"),
    ):
        if name in top:
            found.append(_problem(given, (name,), f"cannot be set; {why}"))
    properties = top["properties"]
    copied = frozenset(_copy_targets(properties))
    found += [_problem(given, *one) for one in _problems(properties, fields, (), copied)]
    return found + list(_names(fields, ()))


def _problem(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> Problem:
    here, path = given, ["mapping"]
    for name in names:
        below = here.get("properties")
        if isinstance(below, Mapping) and "type" not in below:
            here = below
            path.append("properties")
        path.append(name)
        here = here.get(name) if isinstance(here.get(name), Mapping) else {}  # type: ignore[assignment]
    return Problem(f"mapping.{'.'.join(names)}: {what}", block=tuple(path))


def _problems(
    given: Mapping[str, Any], fields: Sequence[Field], path: tuple[str, ...], free: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    known = {field.name: field for field in fields}
    for name, spec in given.items():
        full = (*path, name)
        if not isinstance(spec, Mapping):
            yield full, f"a field's mapping is an object such as {{type: keyword}}, not {spec!r}"
        elif name in known:
            yield from _judge(full, spec, known[name], free)
        elif ".".join(full) not in free and spec.get("type") not in ("alias", "constant_keyword", "join"):
            meant = near(name, known)
            yield full, "the document has no such field" + (f"; did you mean {meant}?" if meant else "")


def _judge(
    path: tuple[str, ...], spec: Mapping[str, Any], field: Field, free: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    given = spec.get("type", "object" if "properties" in spec else None)
    nested = spec.get("properties", {})
    if given in ("object", "nested", None) and field.fields:
        yield from _problems(nested, field.fields, path, free)
        return
    lenient = spec.get("enabled") is False or spec.get("ignore_malformed") is True
    if given is None or given not in _KNOWN or field.type in _ANYTHING or lenient:
        return
    what = "an object" if field.type == "object" else f"{field.type} values"
    if given not in _TYPES.get(field.type, _OTHER)[1]:
        yield path, f"mapped as {given}, which cannot hold {what}"
    elif given in _INTEGERS and _INTEGERS[given] < _BITS.get(field.type, 0):
        yield path, f"mapped as {given}, which is too narrow for {what}"


_METADATA = frozenset(
    "_id _index _source _routing _field_names _ignored _ignored_source _nested_path _seq_no _version _tier "
    "_doc_count _data_stream_timestamp _primary_term".split()
)


def _names(fields: Sequence[Field], path: tuple[str, ...]) -> Iterator[Problem]:
    """Reports names that no index can have: reserved and empty ones, and `a.b` together with `a`."""
    simple = {field.name for field in fields if not field.fields and _simple(field) != _OPAQUE}
    for field in fields:
        here = (*path, field.name)
        shown = ".".join(here)
        parts = field.name.split(".")
        above = [".".join(parts[:length]) for length in range(1, len(parts))]
        if not path and parts[0] in _METADATA:
            why = "Elasticsearch reserves this name"
            yield Problem(f"a document cannot have the field {shown}", why, "choose another name", field=here)
        elif not field.name.strip() or any(not part.strip() for part in parts):
            why = "Elasticsearch accepts no empty name, not even before, between or after dots"
            yield Problem(f"a document cannot have the field {shown!r}", why, "choose another name", field=here)
        elif clash := next((name for name in above if name in simple), ""):
            why = f"Elasticsearch reads {field.name} as a field of the object {clash}, which is a value here"
            hint = f"rename one of them, or write `{clash}: {{object: …}}`"
            yield Problem(f"the fields {clash} and {shown} exclude each other", why, hint, field=here)
        yield from _names(field.fields, here)


def outgrown(given: Mapping[str, Any], actual: Mapping[str, Any], fields: Sequence[Field]) -> list[str]:
    """Returns one sentence for each field that an index of older column types cannot store or search.

    given: the declared mapping. actual: the `properties` of the index. The list is empty when all fields fit.
    """
    wanted = mapping(given, fields)["properties"]
    found = dict.fromkeys(map(_sentence, problems(given, fields)))
    return list(found | dict.fromkeys(_outgrown(wanted, actual, fields, "")))


def _sentence(problem: Problem) -> str:
    return problem.what.removeprefix("mapping.")


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
    """Returns the Elasticsearch types that store and search all values of a PostgreSQL type.

    It leaves out types that hold only some of the values, such as `ip` for texts. An author who knows the values may
    declare those."""
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
