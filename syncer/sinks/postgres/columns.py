"""Maps fields of a document to columns: their types, mistakes in declared types, and how values read back. No I/O.

Every type here gives back the JSON that it was written from, so that `verify` can compare. That is why the choice is
limited: a text in a column of type `uuid`, for example, would change its case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

import msgspec

from syncer.declaration.compile import Field
from syncer.declaration.names import near
from syncer.sinks.postgres.settings import Settings
from syncer.sinks.problem import Problem

ID, VERSION, DELETED = "_id", "_version", "_deleted_at"
OWN = (ID, VERSION, DELETED)
_SYSTEM = frozenset("ctid xmin xmax cmin cmax tableoid".split())
_LONGEST_NAME = 63

_INTEGERS = ("bigint", "integer", "smallint", "numeric")
_FLOATS = ("double precision", "numeric")
# PostgreSQL type (`Field.type`) → the derived type, and those that an author may choose instead. Types that are not
# listed are texts in the document.
_TYPES: Mapping[str, tuple[str, ...]] = {
    # `bigint` for all integers, as in Elasticsearch: when a column is widened, the table still fits
    "smallint": _INTEGERS,
    "integer": _INTEGERS,
    "bigint": _INTEGERS,
    "oid": ("oid", "text"),
    "numeric": ("numeric",),
    "real": (*_FLOATS, "real"),
    "double precision": _FLOATS,
    "boolean": ("boolean",),
    "date": ("date", "text"),
    "timestamp without time zone": ("timestamp without time zone", "text"),
    "timestamp with time zone": ("timestamp with time zone", "text"),
    "time without time zone": ("time without time zone", "text"),
    "time with time zone": ("time with time zone", "text"),
    "interval": ("interval", "text"),
    "uuid": ("uuid", "text"),
    "inet": ("inet", "text"),
    "cidr": ("cidr", "text"),
    "bytea": ("bytea", "text"),
    **dict.fromkeys(
        ("json", "jsonb", "unknown", "composite", "array", "object", "hstore", "geojson", "geojson point"),
        ("jsonb", "json"),
    ),
}
_OTHER = ("text",)
_ALIASES = {
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "decimal": "numeric",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
    "timetz": "time with time zone",
}
_SCALED = re.compile(r"numeric\((\d+)(?:,(\d+))?\)")


def choices(field: Field) -> tuple[str, ...]:
    """Returns the types that a field's column may have. The first one is derived."""
    simple = _TYPES.get(field.type, _OTHER)
    if not field.many:
        return simple
    if field.fields or simple[0] == "jsonb":
        return ("jsonb", "json")
    return ("jsonb", "json", *(f"{one}[]" for one in simple))


def declared(text: str) -> str:
    """Returns a declared type in the spelling of `format_type`."""
    words = re.sub(r"\s*([(),\[\]])\s*", r"\1", re.sub(r"\s+", " ", text.strip().lower()))
    name, rest = re.fullmatch(r"([^(\[]*)(.*)", words).groups()  # type: ignore[union-attr]  # it matches every text
    return f"{_ALIASES.get(name, name)}{rest}"


def types(given: Mapping[str, str], fields: Sequence[Field]) -> dict[str, str]:
    """Returns the column types of these fields, in their order. given: the declared types."""
    return {one.name: declared(given[one.name]) if one.name in given else choices(one)[0] for one in fields}


def fits(type: str, field: Field) -> bool:
    """Returns whether a column of this type, as `format_type` writes it, can hold a field's values."""
    known = choices(field)
    return type in known or (_SCALED.fullmatch(type) is not None and "numeric" in known)


def problems(settings: Settings, fields: Sequence[Field]) -> list[Problem]:
    """Returns the mistakes of a block: unusable names, unknown fields, and types that cannot hold a field's values."""
    known = {field.name: field for field in fields}
    found = [one for field in fields if (one := _name_problem(field.name)) is not None]
    for name, text in settings.columns.items():
        at = ("columns", name)
        if name not in known:
            found.append(_unknown(f"columns.{name}", name, known, at))
        elif not fits(declared(text), known[name]):
            what = f"columns.{name}: a column of type {text} cannot hold {_described(known[name])} unchanged"
            found.append(Problem(what, hint=f"one of: {', '.join(choices(known[name]))}", block=at))
    for number, index in enumerate(settings.indexes):
        names = [(("columns", place), one.name) for place, one in enumerate(index.parsed())]
        names += [(("include", place), name) for place, name in enumerate(index.include)]
        for path, name in names:
            if name not in known:
                found.append(_unknown(f"indexes[{number}]", name, known, ("indexes", number, *path)))
    return found


def _name_problem(name: str) -> Problem | None:
    why = ""
    if name in OWN:
        why = "the syncer uses a column of this name"
    elif name in _SYSTEM:
        why = "PostgreSQL has a system column of this name"
    elif not name or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        why = f"the name of a column must have 1 to {_LONGEST_NAME} bytes"
    return Problem(f"a column cannot have the name {name!r}", why, "rename the field", field=(name,)) if why else None


def _unknown(place: str, name: str, known: Mapping[str, Field], at: tuple[str | int, ...]) -> Problem:
    meant = near(name, known)
    what = f"{place}: the document has no field {name!r}"
    return Problem(what, hint=f"did you mean {meant}?" if meant else f"one of: {', '.join(known)}", block=at)


def _described(field: Field) -> str:
    return f"a list of {field.type} values" if field.many else f"{field.type} values"


def outgrown(actual: Mapping[str, str], fields: Sequence[Field]) -> list[str]:
    """Returns one sentence for each column that cannot hold today's values. actual: the types in the table."""
    return [
        f"{field.name}: the column has the type {actual[field.name]}, which cannot hold all {_described(field)}"
        if field.name in actual
        else f"{field.name}: the table has no such column"
        for field in fields
        if field.name not in actual or not fits(actual[field.name], field)
    ]


# -- values


class Canonical:
    """Writes documents as the table gives them back: every column, with numbers as PostgreSQL prints them.

    columns: name → type, in the order of the fields.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._rounded = {name: _rounding(type) for name, type in columns.items()}
        self._encode = msgspec.json.Encoder(decimal_format="number").encode

    def text(self, body: bytes | str) -> bytes | None:
        """Returns the canonical text of a document. None if no table can hold it.

        PostgreSQL stores no character U+0000, so `write` rejects such a document.
        """
        found = json.loads(body, parse_float=_plain, parse_int=Decimal)
        if not isinstance(found, dict) or _has_nul(found):
            return None
        return self._encode({name: rounded(found.get(name)) for name, rounded in self._rounded.items()})


def _plain(text: str) -> Decimal:
    """Returns a number without an exponent, as jsonb and numeric print it. Keeps trailing zeros."""
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    return Decimal(format(number, "f")) if isinstance(exponent, int) and exponent > 0 else number


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_has_nul, value))


def _rounding(type: str) -> Callable[[Any], Any]:
    """Returns the function that rounds a value as a column of this type does."""
    match = _SCALED.fullmatch(type)
    if match is None:
        return lambda value: value
    step, context = Decimal(1).scaleb(-int(match[2] or 0)), Context(prec=int(match[1]) + 1)

    def rounded(value: Any) -> Any:
        if not isinstance(value, Decimal):
            return value
        try:
            return value.quantize(step, ROUND_HALF_UP, context)
        except InvalidOperation:  # too large: `write` rejects it
            return value

    return rounded
