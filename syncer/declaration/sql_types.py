"""Determines the types of expressions, as far as that is possible without PostgreSQL. Otherwise the type is empty.

The types are used to derive mappings (`Field.type`), and to resolve the target of a cast. They also decide where an
aggregate needs an order: where equal values can have different texts, as 1.0 and 1.00 do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlglot import exp

from syncer.declaration.names import nearest, quote


class Value(NamedTuple):
    """An expression in SQL, with its type."""

    sql: str
    type: str = ""
    """A type as in `Column.base`. Empty if only PostgreSQL knows it; `literal` or `null` for an untyped constant."""
    element: str = ""
    """The type of the elements of an array."""
    exact: bool | None = None
    """Whether equal values always have the same text. None: the type decides (`EXACT`)."""

    @property
    def has_one_text(self) -> bool:
        """Whether equal values always have the same text, as 1.00 and 1.00 do, but not 1.0 and 1.00."""
        return self.type in EXACT if self.exact is None else self.exact


INTEGERS = ("smallint", "integer", "bigint")
NUMBERS = (*INTEGERS, "numeric", "real", "double precision")
TEXTS = ("text", "character varying")
_TIMESTAMPS = ("timestamp without time zone", "timestamp with time zone")
TIMES = ("date", *_TIMESTAMPS)

EXACT = frozenset(
    {*INTEGERS, *TEXTS, *_TIMESTAMPS, "boolean", "uuid", "date", "time without time zone", "enum", "bytea", "oid"}
)
"""Types whose equal values always have the same text, except texts with a collation that is not deterministic."""

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
"""Types that keys and links can have. They are built in and comparable, and text and value convert without loss."""

EXTENSION_KEYS = frozenset(("citext", "ltree"))
"""Types of extensions that links, and the keys of related tables, can have."""

# Name of the type in pg_catalog → `Column.base`.
CASTABLE = {
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
_INTERNAL = {base: name for name, base in CASTABLE.items()}
BUILTIN = frozenset(CASTABLE.values()) | {
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
    "json": "cast to jsonb, because json keeps its original text, including line breaks",
    "money": "cast to numeric, because the text of money depends on lc_monetary",
    "xml": "cast to text",
}


def cast_target(to: exp.Expr, enums: Mapping[str, object]) -> Value:
    """Returns the type after `::`.

    enums: the enum types of the catalog.
    Raises ValueError(what, hint) if the type is unknown, or if its text depends on the session.
    """
    if not isinstance(to, exp.DataType) or not isinstance(to.this, exp.DType):
        name = to.sql("postgres").lower()
        hint = "the text of this type depends on the session" if name.startswith("reg") else ""
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
    if name not in CASTABLE:
        raise ValueError(f"cannot cast to {name}", _WHY_NOT.get(name) or nearest(name, CASTABLE))
    if sizes and (name not in _SIZED or not all(s.isdigit() for s in sizes)):
        raise ValueError(f"cannot cast to {to.sql('postgres')}")
    return Value(f"pg_catalog.{quote(name)}{'(' + ','.join(sizes) + ')' if sizes else ''}", CASTABLE[name])


def _named(to: exp.DataType, enums: Mapping[str, object]) -> Value:
    """Returns a type that sqlglot does not know: one of PostgreSQL's rarer types, or an enum of the catalog."""
    words = [(p.name, bool(p.args.get("quoted"))) for p in to.args["kind"].find_all(exp.Identifier)]
    last, quoted = words[-1]
    name = last if quoted else last.lower()
    if name in CASTABLE and (len(words) == 1 or words[0][0].lower() == "pg_catalog"):
        return Value(f"pg_catalog.{quote(name)}", CASTABLE[name])
    schemas = [words[0][0], words[0][0].lower()] if len(words) > 1 else [None]
    for spelling, plain in ((last, last), (name, name)):
        for enum in sorted(enums, key=lambda e: (not e.startswith("public."), e)):
            schema, _, own = enum.partition(".")
            unquoted = [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in (schema, own)]
            if unquoted[1] in (spelling, plain) and (schemas == [None] or unquoted[0] in schemas):
                return Value(enum, "enum")
    raise ValueError(
        f"cannot cast to {last}",
        _WHY_NOT.get(name) or nearest(name, [*CASTABLE, *(e.partition(".")[2] for e in enums)]),
    )


def family(base: str) -> str:
    """Returns the widest type whose values are written and compared in the same way.

    A column can be widened within its family without any effect on compiled read models.
    """
    return "bigint" if base in INTEGERS else "text" if base in TEXTS else base


def key_type(type: str, base: str) -> str:
    """Returns the type that the text of a key is cast to: the widest of its family, without the checks of a domain.

    The comparison with the wider type can still use the column's index. It also accepts keys from before the column was
    narrowed.
    base: a type in KEYABLE or EXTENSION_KEYS.
    """
    return type if base == "enum" or base in EXTENSION_KEYS else f"pg_catalog.{quote(_INTERNAL[family(base)])}"


def own_type(type: str, base: str) -> str:
    """Returns the type that a value of a column has in an expression, without the checks of a domain.

    base: a type in KEYABLE.
    """
    return type if base == "enum" else f"pg_catalog.{quote(_INTERNAL[base])}"


def common(values: Sequence[Value]) -> tuple[str, str]:
    """Returns the type, and the element type, of CASE, COALESCE or ARRAY with these values. Empty if not certain."""
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
    """Returns the type, and the element type, of `left || right`."""
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
    """Returns the type of `left operator right` by tables 9.4 and 9.33 of PostgreSQL's manual. Empty if not certain."""
    if left in NUMBERS and right in NUMBERS:
        wider = max(left, right, key=NUMBERS.index)
        return "double precision" if wider == "real" and left != right else wider
    if operator == "-" and left == right and (left in _TIMESTAMPS or left == "date"):
        return "integer" if left == "date" else "interval"
    if operator in "+-" and right == "interval":
        return "timestamp without time zone" if left == "date" else left if left in (*_TIMESTAMPS, "interval") else ""
    if operator == "+" and left == "interval":
        return "timestamp without time zone" if right == "date" else right if right in _TIMESTAMPS else ""
    if operator in "+-" and left == "date" and right in INTEGERS:
        return "date"
    if "interval" in (left, right) and operator in "*/":
        return "interval"
    return "jsonb" if operator == "-" and left == "jsonb" else ""
