"""The columns of the table: one for each top-level field of the document, and those of the syncer itself.

Names that begin with `_` belong to the syncer. Nested fields, lists and `jsonb` become their JSON text. So a change
inside of them never changes the table.

A value can miss its column: a number with too many digits, the date `infinity`, a field that the declaration no longer
has. Then the column is null or rounded, and `_other` has the exact JSON. No value is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException
from typing import Any, NamedTuple

import msgspec
import orjson

from syncer.declaration.compiled import Field
from syncer.errors import Fatal
from syncer.ports import DocumentWrite

DIGITS, DECIMALS = 38, 18
"""Of a `numeric`: at most 20 digits before the point, and 18 after it."""
_UNIT = Decimal(1).scaleb(-DECIMALS)
_EXACT = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN)
_REFUSED = frozenset(" ,;{}()\n\t=")
"""Characters that Parquet's readers refuse in the name of a column."""

DECIMAL = f"decimal({DIGITS},{DECIMALS})"
TYPES = {
    "smallint": "short",
    "integer": "integer",
    "bigint": "long",
    "numeric": DECIMAL,
    "real": "double",
    "double precision": "double",
    "boolean": "boolean",
    "date": "date",
    "timestamp with time zone": "timestamp",
    "timestamp without time zone": "timestamp_ntz",
}
"""Type of a field → type of Delta. All other fields are `string`."""
_JSON = frozenset(("object", "unknown", "json", "jsonb", "array", "composite", "hstore", "geojson", "geojson point"))
"""Types of fields whose column has JSON text. The others that are `string` have the text itself."""


class Column(NamedTuple):
    name: str
    type: str
    """The type in Delta, such as `long`."""
    json: bool = False
    """Whether a `string` holds JSON text."""


OWN = (
    Column("_id", "string"),
    Column("_version", "long"),
    Column("_deleted", "boolean"),
    Column("_generation", "integer"),
    Column("_committed_at", "timestamp"),
    Column("_written_at", "timestamp"),
    Column("_topic_id", "string"),
    Column("_partition", "integer"),
    Column("_offset", "long"),
    Column("_other", "string", json=True),
)
"""The columns of the syncer. The fields of the document follow."""


def columns(fields: Sequence[Field], model: str) -> list[Column]:
    """Returns the columns of all top-level fields. Raises Fatal for a name that the table cannot have."""
    found = [Column(f.name, _type(f), f.many or f.type in _JSON) for f in fields]
    taken = {one.name.lower(): "a column of the syncer" for one in OWN}
    for one in found:
        if bad := sorted(_REFUSED & set(one.name)):
            raise _name(model, one.name, f"the name of a column cannot contain {bad[0]!r}")
        if known := taken.get(one.name.lower()):
            raise _name(model, one.name, f"it has the same name as {known}; Delta ignores upper and lower case")
        taken[one.name.lower()] = f"the field {one.name!r}"
    return found


def _type(field: Field) -> str:
    return "string" if field.many else TYPES.get(field.type, "string")


def _name(model: str, field: str, why: str) -> Fatal:
    return Fatal(
        f"the field {field!r} cannot be exported",
        where=f"read model {model}",
        why=why,
        hint=f"rename the field in the declaration, then: syncer resync {model}",
    )


# -- documents to rows -----------------------------------------------------------------------------------

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode
_RANGES = {"short": 1 << 15, "integer": 1 << 31, "long": 1 << 63}


class Misfit(ValueError):
    """A value does not fit its column. `instead` is the nearest value that does, or None."""

    def __init__(self, instead: Any = None) -> None:
        super().__init__()
        self.instead = instead


def _integer(limit: int) -> Callable[[bytes], int]:
    def convert(raw: bytes) -> int:
        value = int(raw)
        if not -limit <= value < limit:
            raise Misfit
        return value

    return convert


def _double(raw: bytes) -> float:
    return float(_text(raw) if raw.startswith(b'"') else raw)


def _decimal(raw: bytes) -> Decimal:
    exact = Decimal(raw.decode())
    rounded = exact.quantize(_UNIT, context=_EXACT)
    if rounded != exact:
        raise Misfit(rounded)
    return rounded


def _boolean(raw: bytes) -> bool:
    return {b"true": True, b"false": False}[raw]


def _date(raw: bytes) -> date:
    return date.fromisoformat(_text(raw))


def _timestamp(raw: bytes) -> datetime:
    value = datetime.fromisoformat(_text(raw))
    if value.tzinfo is None:
        raise Misfit
    return value.astimezone(UTC)


def _timestamp_ntz(raw: bytes) -> datetime:
    value = datetime.fromisoformat(_text(raw))
    if value.tzinfo is not None:
        raise Misfit
    return value


def _string(raw: bytes) -> str:
    return _text(raw) if raw.startswith(b'"') else raw.decode()


_CONVERT: Mapping[str, Callable[[bytes], Any]] = {
    **{name: _integer(limit) for name, limit in _RANGES.items()},
    "double": _double,
    DECIMAL: _decimal,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "timestamp_ntz": _timestamp_ntz,
    "string": _string,
}
_LATEST = 253_402_300_800_000
"""The year 10000, in milliseconds since the Unix epoch."""
_MISFITS = (ValueError, KeyError, OverflowError, DecimalException, msgspec.DecodeError)
"""What a conversion raises for a value that does not fit. A value of another type is one, too."""


class Rows:
    """Collects the rows of one commit."""

    def __init__(self, columns: Iterable[Column], topic_id: str) -> None:
        self._convert = {one.name: bytes.decode if one.json else _CONVERT[one.type] for one in columns}
        self._topic_id = topic_id
        self._rows: list[tuple[Any, ...]] = []

    def add(self, write: DocumentWrite) -> None:
        """Adds the row of one record. A delete has no values but those of the syncer's columns."""
        found, other = self._document(write.body)
        row = (
            write.id,
            min(write.version, (1 << 63) - 1),
            write.body is None,
            write.generation & 0x7FFFFFFF,
            _micros(write.committed_ms),
            _micros(write.at_ms),
            self._topic_id,
            write.partition,
            write.offset,
            other,
            *map(found.get, self._convert),
        )
        self._rows.append(row)

    def values(self) -> dict[str, Sequence[Any]]:
        """Returns the values of each column, all of the same length. At least one row was added."""
        names = (*(one.name for one in OWN), *self._convert)
        return dict(zip(names, zip(*self._rows, strict=True), strict=True))

    def _document(self, body: bytes | None) -> tuple[dict[str, Any], str | None]:
        """Returns the values by column, and the JSON text of those that have no column."""
        if body is None:
            return {}, None
        try:
            raws = _fields(body)
            body.decode()  # `_fields` does not check the encoding of values
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the syncer did not write it
            return {}, orjson.dumps(body.decode(errors="replace")).decode()
        found, others = {}, []
        for name, value in raws.items():
            raw = bytes(value)
            convert = self._convert.get(name)
            if convert is None:
                others.append((name, raw))
            elif raw != b"null":
                try:
                    found[name] = convert(raw)
                except Misfit as misfit:
                    found[name] = misfit.instead
                    others.append((name, raw))
                except _MISFITS:
                    others.append((name, raw))
        if not others:
            return found, None
        pairs = (f"{orjson.dumps(name).decode()}:{raw.decode()}" for name, raw in others)
        return found, "{" + ",".join(pairs) + "}"


def _micros(ms: int | None) -> int | None:
    """Returns a time in microseconds since the Unix epoch, which pyarrow takes as a timestamp."""
    return ms * 1000 if ms is not None and -_LATEST < ms < _LATEST else None
