"""Types as far as they show on the face of an expression. Where they do not, PostgreSQL knows, and we say so.

Used to derive mappings (`Field.type`), to find what can be cast to, and to tell whether equal values look the
same (1.0 and 1.00 do not), which decides where an aggregate needs an order to be a function of the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlglot import exp

from syncer.declaration.names import nearest, quote


class Value(NamedTuple):
    """An expression in SQL."""

    sql: str
    type: str = ""
    """`Column.base`-like; empty where only PostgreSQL knows; `literal` and `null` for untyped constants."""
    element: str = ""
    """For an array: the same of its elements."""


INTEGERS = ("smallint", "integer", "bigint")
NUMBERS = (*INTEGERS, "numeric", "real", "double precision")
TEXTS = ("text", "character varying")
_TIMES = ("timestamp without time zone", "timestamp with time zone")

EXACT = frozenset(
    {*INTEGERS, *TEXTS, *_TIMES, "boolean", "uuid", "date", "time without time zone", "enum", "bytea", "oid"}
)
"""Types whose equal values have the same text."""

KEYABLE = EXACT | {
    "numeric",
    "real",
    "double precision",
    "character",
    "name",
    "time with time zone",
    "interval",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "bit",
    "bit varying",
    '"char"',
}
"""Types that a key or a link can have: built in, comparable, and back and forth between value and text."""

# Name in a cast → the type's own name in pg_catalog, and `Column.base`.
_NAMED = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "numeric": "numeric",
    "float4": "real",
    "float8": "double precision",
    "text": "text",
    "varchar": "character varying",
    "bpchar": "character",
    "name": "name",
    "uuid": "uuid",
    "date": "date",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "interval": "interval",
    "jsonb": "jsonb",
    "bytea": "bytea",
    "bit": "bit",
    "varbit": "bit varying",
    "inet": "inet",
    "cidr": "cidr",
    "macaddr": "macaddr",
    "macaddr8": "macaddr8",
    "jsonpath": "jsonpath",
    "oid": "oid",
    "char": '"char"',
    "int4range": "range",
    "int8range": "range",
    "numrange": "range",
    "tsrange": "range",
    "tstzrange": "range",
    "daterange": "range",
    "int4multirange": "multirange",
    "int8multirange": "multirange",
    "nummultirange": "multirange",
    "tsmultirange": "multirange",
    "tstzmultirange": "multirange",
    "datemultirange": "multirange",
}
_INTERNAL = {base: name for name, base in _NAMED.items()}
BUILTIN = frozenset(_NAMED.values()) | {
    "json",
    "xml",
    "array",
    "enum",
    "composite",
    "literal",
    "null",
    "tsvector",
    "tsquery",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "pg_lsn",
    "xid",
    "xid8",
    "tid",
    "cid",
    "pg_snapshot",
}
"""Types whose operators are in pg_catalog."""

_ALIASES = {
    exp.DType.BOOLEAN: "bool",
    exp.DType.SMALLINT: "int2",
    exp.DType.INT: "int4",
    exp.DType.BIGINT: "int8",
    exp.DType.DECIMAL: "numeric",
    exp.DType.FLOAT: "float4",
    exp.DType.DOUBLE: "float8",
    exp.DType.VARBINARY: "bytea",
}
_SIZED = {
    "numeric",
    "varchar",
    "bpchar",
    "bit",
    "varbit",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
}
_WHY_NOT = {
    "json": "cast to jsonb: json keeps the text as it is, line breaks and all",
    "money": "its text depends on lc_monetary; cast to numeric",
    "xml": "cast to text",
}


def cast_target(to: exp.Expr, enums: Mapping[str, object]) -> Value:
    """The type after `::`. Raises ValueError(what, hint) if it is unknown or depends on the session."""
    if not isinstance(to, exp.DataType) or not isinstance(to.this, exp.DType):
        name = to.sql("postgres").lower()
        hint = "its text depends on the session" if name.startswith("reg") else ""
        if name != "oid":
            raise ValueError(f"cannot cast to {name}", hint)
        return Value('pg_catalog."oid"', "oid")
    kind = to.this
    if kind is exp.DType.ARRAY:
        element = cast_target(to.expressions[0], enums)
        sql = element.sql if element.sql.endswith("[]") else f"{element.sql}[]"
        return Value(sql, "array", element.element or element.type)
    if kind is exp.DType.USERDEFINED:
        return _named(to, enums)
    name = _ALIASES.get(kind, kind.value.lower())
    sizes = [str(p.this.this) for p in to.expressions]
    if kind is exp.DType.CHAR:
        name, sizes = "bpchar", sizes or ["1"]
    if name == "bit" and not sizes:
        sizes = ["1"]
    if name not in _NAMED:
        raise ValueError(f"cannot cast to {name}", _WHY_NOT.get(name) or nearest(name, _NAMED))
    if sizes and (name not in _SIZED or not all(s.isdigit() for s in sizes)):
        raise ValueError(f"cannot cast to {to.sql('postgres')}")
    return Value(f"pg_catalog.{quote(name)}{'(' + ','.join(sizes) + ')' if sizes else ''}", _NAMED[name])


def _named(to: exp.DataType, enums: Mapping[str, object]) -> Value:
    """A type that sqlglot has no word for: one of PostgreSQL's rarer ones, or an enum of the catalog."""
    words = [(p.name, bool(p.args.get("quoted"))) for p in to.args["kind"].find_all(exp.Identifier)]
    last, quoted = words[-1]
    name = last if quoted else last.lower()
    if name in _NAMED and (len(words) == 1 or words[0][0].lower() == "pg_catalog"):
        return Value(f"pg_catalog.{quote(name)}", _NAMED[name])
    schemas = [words[0][0], words[0][0].lower()] if len(words) > 1 else [None]
    for spelling, plain in ((last, last), (name, name)):
        for enum in sorted(enums, key=lambda e: (not e.startswith("public."), e)):
            schema, _, own = enum.partition(".")
            unquoted = [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in (schema, own)]
            if unquoted[1] in (spelling, plain) and (schemas == [None] or unquoted[0] in schemas):
                return Value(enum, "enum")
    raise ValueError(
        f"cannot cast to {last}",
        _WHY_NOT.get(name) or nearest(name, [*_NAMED, *(e.partition(".")[2] for e in enums)]),
    )


def family(base: str) -> str:
    """The widest type whose values are written and compared as those of this one. A column can be widened
    within its family, and nothing that was made of its type changes."""
    return "bigint" if base in INTEGERS else "text" if base in TEXTS else base


def key_type(type: str, base: str) -> str:
    """What to cast the text of a key to: the widest of its family, without the checks of a domain. `base` is
    in KEYABLE. The wider type still finds the column's index, and takes keys of before the column was
    narrowed."""
    return type if base == "enum" else f"pg_catalog.{quote(_INTERNAL[family(base)])}"


def common(values: Sequence[Value]) -> tuple[str, str]:
    """The type (and element) that CASE, COALESCE or ARRAY gives these; empty if it is not plain."""
    typed = [v for v in values if v.type not in ("literal", "null")]
    if not typed:
        return ("literal" if any(v.type == "literal" for v in values) else "null", "")
    types = {v.type for v in typed}
    if len(types) == 1:
        return typed[0].type, typed[0].element
    if types <= set(NUMBERS):
        return max(types, key=NUMBERS.index), ""
    return ("text", "") if types <= set(TEXTS) else ("", "")


def concatenation(left: Value, right: Value) -> tuple[str, str]:
    """The type of `left || right`."""
    types = {left.type, right.type}
    if "" in types:
        return "", ""
    if "array" in types:
        return "array", left.element or right.element
    for kind in ("jsonb", "bytea", "bit", "bit varying"):
        if kind in types:
            return kind, ""
    return "text", ""


def arithmetic(operator: str, left: str, right: str) -> str:
    """The type of `left operator right`, if it is plain (PostgreSQL manual, tables 9.4 and 9.33)."""
    if left in NUMBERS and right in NUMBERS:
        wider = max(left, right, key=NUMBERS.index)
        return "double precision" if wider == "real" and left != right else wider
    if operator == "-" and left == right and (left in _TIMES or left == "date"):
        return "integer" if left == "date" else "interval"
    if operator in "+-" and right == "interval":
        return "timestamp without time zone" if left == "date" else left if left in (*_TIMES, "interval") else ""
    if operator == "+" and left == "interval":
        return "timestamp without time zone" if right == "date" else right if right in _TIMES else ""
    if operator in "+-" and left == "date" and right in INTEGERS:
        return "date"
    if "interval" in (left, right) and operator in "*/":
        return "interval"
    return "jsonb" if operator == "-" and left == "jsonb" else ""
