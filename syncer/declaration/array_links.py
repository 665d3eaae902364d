"""Links an array of keys to the rows with these keys: `on: {id: any(child_ids)}`, or `on: {"any(member_ids)": id}`.

A row is linked if its key is among the elements, as `= ANY` decides. So an element that occurs twice links its row
once. A NULL array, an empty one and NULL elements link to nothing. The order of the elements has no effect. An array of
several dimensions links to nothing, because its events may lack elements.

The condition is written for the column that is searched:

    sought is the key      sought = ANY (array)          the index of a key
    sought is the array    sought @> ARRAY[key]          a GIN index (`Table.element_indexes`)

A key that does not fit the type of the elements, such as 3000000000 for an integer[], becomes NULL, which no array
contains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from syncer.declaration.catalog import Column
from syncer.declaration.compiled import LIST
from syncer.declaration.sql_types import INTEGERS, TEXTS, family, own_type

ELEMENTS = frozenset((*INTEGERS, *TEXTS, "uuid"))
"""Types that the elements can have."""
_BOUNDS = {"smallint": "-32768 AND 32767", "integer": "-2147483648 AND 2147483647"}
_DIMENSIONS = "pg_catalog.array_ndims"
_POSSIBLE = "possible are arrays of integers, uuid, varchar and text, and a key of the same type"


def links(inner: Column, outer: Column) -> bool:
    """Returns whether a link of these columns compares the elements of an array."""
    return "array" in (inner.base, outer.base)


def element(column: Column) -> Column:
    """Returns a column of the elements, if the column is an array. Otherwise returns the column itself."""
    if column.base != "array":
        return column
    return replace(column, type=column.element, base=column.element_base, element="", element_base="")


def described(inner: Column, outer: Column) -> str:
    """Returns the pair of a link as text, such as `id = any(child_ids)`. Empty if it has no array."""
    if not links(inner, outer):
        return ""
    sides = (f"any({column.name})" if column.base == "array" else column.name for column in (inner, outer))
    return " = ".join(sides)


def encoded(column: Column) -> str:
    """Returns how an event encodes the values of a linking column: its type family, with `[]` if it is an array."""
    return f"{family(column.element_base)}{LIST}" if column.base == "array" else family(column.base)


def is_element(value: str, array: str) -> str:
    """Returns the condition that a value is an element of an array. It can use an index of the value."""
    return f"{value} = ANY ({flat(array)})"


def flat(array: str) -> str:
    """Returns an array, or NULL if it has several dimensions."""
    return f"CASE WHEN {_DIMENSIONS}({array}) = 1 THEN {array} END"


def contains(array: Column, array_sql: str, value: str) -> str:
    """Returns the condition that finds the arrays with a value among their elements.

    It can use a GIN index, and never fails. value: of the same family of types as the elements.
    """
    found = element(array)
    cast = f"{value}::{own_type(found.type, found.base)}"
    if found.base in _BOUNDS:  # an event's integer is a bigint, and so may be the key
        cast = f"CASE WHEN {value} BETWEEN {_BOUNDS[found.base]} THEN {cast} END"
    return f"{array_sql} @> ARRAY[{cast}] AND {_DIMENSIONS}({array_sql}) = 1"


def mistake(
    inner: Column, any_inner: bool, outer: Column, any_outer: bool, *, cast: bool = False
) -> tuple[str, str] | None:
    """Returns what is wrong with a link of an array, or with `any`, and a hint. None if nothing is.

    any_inner, any_outer: whether the declaration has `any` around the column. cast: whether it has a cast.
    """
    for column, elements in ((inner, any_inner), (outer, any_outer)):
        if elements and column.base != "array":
            return f"any() needs an array, and {column.name} is {column.type}", f"write {column.name} without any()"
    if not links(inner, outer):
        return None
    if inner.base == outer.base:
        return "both columns are arrays", "link an array to a column of its elements"
    array, key, elements = (inner, outer, any_inner) if inner.base == "array" else (outer, inner, any_outer)
    on = f'{{"any({inner.name})": {outer.name}}}' if array is inner else f"{{{inner.name}: any({outer.name})}}"
    if not elements:
        return f"{array.name} is an array", f"link its elements: on: {on}"
    if cast:
        return (
            "a link of an array cannot compare texts",
            f"give the elements the type of {key.name}, and write on: {on}",
        )
    if array.element_base not in ELEMENTS or array.type != f"{array.element}[]" or array.element != array.element_base:
        return f"the elements of {array.name} ({array.type}) cannot be a link", _POSSIBLE
    pair = {array.element_base, key.base}
    if len(pair) > 1 and not pair <= set(INTEGERS) and not pair <= set(TEXTS):
        return f"the elements of {array.name} are {array.element}, and {key.name} is {key.type}", _POSSIBLE
    for column in (array, key):
        if column.loose_collation:
            what = f"the collation {column.collation} of {column.name} makes different texts equal"
            return what, "a link of an array needs a deterministic collation"
    return None


def misplaced(pairs: Sequence[tuple[Column, Column]], kind: str, *, through: bool) -> tuple[str, str] | None:
    """Returns why a relation cannot have an array in its link, and a hint. None if it can, or has none.

    pairs: the columns of the related table, each with the outer one. kind: `one`, `many` or `up`.
    through: whether the link goes through other relations.
    """
    arrays = [(inner, outer) for inner, outer in pairs if links(inner, outer)]
    if not arrays:
        return None
    inner, outer = arrays[0]
    name = (inner if inner.base == "array" else outer).name
    if kind == "one":
        return f"the elements of {name} can lead to many rows", "use `many`"
    if kind == "up":
        return f"a path of ancestors cannot follow the array {name}", "link a column with one key"
    if len(arrays) > 1:
        return "a link can have one array", "use one any(), and put other conditions into `where`"
    if through and inner.base == "array":
        return (
            f"a link through other relations cannot end at the array {name}",
            "declare the relation inside of the last relation of the path",
        )
    return None
