"""Converts flat documents to Redis hashes with one field for each value, and back. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence

import orjson

from syncer.declaration.compile import Field
from syncer.sinks.problem import Problem

NESTED = frozenset(("object", "json", "jsonb", "array", "composite", "hstore", "geojson", "geojson point"))


def nested_fields(fields: Sequence[Field]) -> list[Problem]:
    """Returns one problem for each field whose values a hash cannot hold: lists and objects."""
    found = []
    for field in fields:
        if field.many or field.type in NESTED:
            what = "a list" if field.many else "an object" if field.type == "object" else field.type
            text = f"format: a hash cannot hold {field.name}, which is {what}; use format: json"
            found.append(Problem(text, field=(field.name,)))
    return found


def flat(body: bytes) -> dict[str, str]:
    """Returns the fields of the hash for a document. Numbers keep their exact text. Nulls are left out.

    Raises ValueError for a document that is not an object, or that has a list or an object in it.
    """
    document = json.loads(body, parse_float=str, parse_int=str)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    out = {}
    for name, value in document.items():
        if isinstance(value, bool):
            out[name] = "true" if value else "false"
        elif isinstance(value, str):
            out[name] = value
        elif value is not None:
            raise ValueError(f"{name}: a hash cannot hold a list or an object; use format json")
    return out


def flat_json(fields: dict[str, str]) -> bytes | None:
    """Returns a hash as JSON text, with sorted fields. Returns None for one without fields: Redis keeps none."""
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) if fields else None
