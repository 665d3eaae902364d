"""Compares the columns of a link, also columns of types that `=` cannot compare: `on: {target_id: "id::text"}`.

Such a link compares texts: the text of each column, as PostgreSQL writes it, byte for byte. Only types that have one
text for each value are possible. So an integer 7 is linked to `7`, never to `007`.

A cast of a column would hide it from its index. So the condition is written for the column that is searched:

    sought is a text       sought = known::text
    sought is an integer   sought = CASE WHEN the text is that of an integer THEN text::int8 END   (also uuid, enum)
    sought is char(n)      sought = text::bpchar AND sought::text = text                           (also citext)

Each of them uses the plain index of the column that is sought. None of them can fail: a text that is not the text of
any value of the type, such as `abc` for an integer, becomes NULL, which is linked to no row.
"""

from __future__ import annotations

from syncer.declaration import array_links
from syncer.declaration.catalog import Column
from syncer.declaration.sql_types import EXTENSION_KEYS, INTEGERS, KEYABLE, TEXTS, key_type

CASTABLE_LINKS = frozenset((*INTEGERS, *TEXTS, "uuid", "enum", "character", "citext"))
"""Types that `::text` in a link can have."""
_ALIKE = (frozenset((*INTEGERS, "numeric")), frozenset(TEXTS))
"""Groups of types that `=` compares with each other, and whose indexes it can use."""
_INTEGER = "'^(0|-?[1-9][0-9]{0,18})$'"
_INT8 = "-9223372036854775808 AND 9223372036854775807"
_UUID = "'^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
_POSSIBLE = "possible are integers, uuid, enums, char(n), citext, varchar and text"
_BYTES = 'COLLATE pg_catalog."C"'


def compares_texts(one: Column, other: Column) -> bool:
    """Returns whether a link of these columns compares their texts. False if `=` can compare their values."""
    pair = {one.base, other.base}
    return "array" not in pair and len(pair) > 1 and not any(pair <= alike for alike in _ALIKE)


def text_of(column: Column, sql: str) -> str:
    """Returns the text of a value, without the padding of `char(n)`."""
    return sql if column.base in TEXTS else f"{sql}::pg_catalog.text"


def compared(column: Column, other: Column, sql: str) -> str:
    """Returns a value of a link in the form in which it is compared: its text, if the link compares texts.

    Use it before DISTINCT, because equal values of `citext` have several texts.
    """
    return text_of(column, sql) if compares_texts(column, other) else sql


def matched(sought: Column, sought_sql: str, known: Column, known_sql: str) -> str:
    """Returns the condition that finds the rows in which `sought` equals a known value.

    If one of the columns is an array, the other one has to equal one of its elements.
    sought_sql: the column, whose index the condition can use. known_sql: the known value, of the type of `known`.
    """
    if known.base == "array":
        return array_links.is_element(sought_sql, known_sql)
    if sought.base == "array":
        return array_links.contains(sought, sought_sql, known_sql)
    if compares_texts(sought, known):
        return matched_text(sought, sought_sql, text_of(known, known_sql))
    return f"{sought_sql} {_equals(sought)} {known_sql}"


def matched_text(sought: Column, sought_sql: str, text: str) -> str:
    """Returns the condition that finds the rows in which the text of `sought` is this text. It never fails."""
    bytewise = f"({text} {_BYTES})"
    type = key_type(sought.type, sought.base)
    if sought.base in INTEGERS:
        inside = f"{text}::pg_catalog.numeric BETWEEN {_INT8}"
        when = f"WHEN {bytewise} !~ {_INTEGER} THEN NULL WHEN {inside} THEN {text}::{type}"
    elif sought.base == "uuid":
        when = f"WHEN {bytewise} ~ {_UUID} THEN {text}::{type}"
    elif sought.base == "enum":
        labels = f"pg_catalog.enum_range(NULL::{type})::pg_catalog.text[]"
        when = f"WHEN {bytewise} = ANY ({labels}) THEN {text}::{type}"
    elif sought.base in ("character", "citext"):
        same = f"({sought_sql}::pg_catalog.text {_BYTES}) = {text}"
        return f"{sought_sql} {_equals(sought)} {text}::{type} AND {same}"
    else:
        return f"{sought_sql} = {text}"
    return f"{sought_sql} = CASE {when} END"


def _equals(column: Column) -> str:
    """Returns the operator for equal values. The session's search path has no operators of extensions."""
    if column.base not in EXTENSION_KEYS:
        return "="
    return f"OPERATOR({column.type.rpartition('.')[0]}.=)"


def mistake(inner: Column, inner_cast: str, outer: Column, outer_cast: str) -> tuple[str, str] | None:
    """Returns what is wrong with a link of two columns that has a cast, and a hint. None if nothing is.

    inner: of the related table. The casts are those of `link_pairs.side`.
    """
    sides = ((inner, inner_cast), (outer, outer_cast))
    for column, cast in sides:
        if cast and cast not in ("text", "pg_catalog.text"):
            texts = suggestion(inner, outer)
            hint = f"compare their texts: {texts}" if texts else "only ::text is possible"
            return f"a link cannot cast {column.name} to {cast}, because a value that does not fit would fail", hint
        if cast and column.base not in CASTABLE_LINKS:
            several = column.base in KEYABLE
            why = "its equal values can have different texts" if several else "the syncer cannot search it"
            return f"the type {column.type} of {column.name} cannot be compared as text: {why}", _POSSIBLE
    if not compares_texts(inner, outer):
        if inner.base == outer.base == "citext":
            return "both columns are citext", "link them without ::text: the case of letters then does not matter"
        return None
    for column, cast in sides:
        if not cast and column.base not in TEXTS:
            return f"one side is a text, and {column.name} is {column.type}", f"write {_texts(inner, outer)}"
    if not {inner.base, outer.base} & {*TEXTS, "character", "citext"}:
        return f"the text of {inner.type} never equals the text of {outer.type}", "link other columns"
    for column, _ in sides:
        if column.loose_collation:
            what = f"the collation {column.collation} of {column.name} makes different texts equal"
            return what, "a link that compares texts needs a deterministic collation"
    return None


def suggestion(inner: Column, outer: Column) -> str:
    """Returns the link that compares the texts of two columns. Empty if there is none."""
    if not compares_texts(inner, outer) or not {inner.base, outer.base} <= CASTABLE_LINKS:
        return ""
    if not {inner.base, outer.base} & set(TEXTS):
        return ""
    return _texts(inner, outer)


def _texts(inner: Column, outer: Column) -> str:
    def written(column: Column) -> str:
        name = column.name if column.name.isidentifier() and column.name.islower() else f'"{column.name}"'
        if column.base in TEXTS:
            return name
        return f'"{name}::text"' if name == column.name else f"'{name}::text'"

    return f"on: {{{written(inner)}: {written(outer)}}}"
