"""Combines the states of buckets (`declaration/partial_states.py`), and assembles the document. Pure.

The document has the text that PostgreSQL writes when it renders the whole document at once.

`merge` returns the state of several buckets together. It has the same form as the state of one bucket, so merged states
can be merged again, in the order of their buckets. `combined_blocks.py` uses that.

A document may have thousands of buckets, and it is combined for each change. So the functions take columns, and leave
the loops to functions of Python that are written in C. A column is one item of all states, in the order of buckets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_UP, Context, Decimal, localcontext
from functools import cache
from heapq import merge as merge_sorted
from itertools import islice
from typing import Any, NamedTuple

import orjson

from syncer.declaration.compiled import CombinedField, SortKey

_EXACT = Context(prec=160_000, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_UP, traps=[])
"""PostgreSQL's numeric has at most 131,072 digits before and 16,383 after the decimal point. Infinity − Infinity is
NaN, as in PostgreSQL. ROUND_HALF_UP rounds halves away from zero."""
_DECODER = json.JSONDecoder()
Text = str | None
State = Sequence[Text]
"""The state of one or more buckets: the items of all fields."""
Column = Sequence[Text]


class _Function(NamedTuple):
    """Combines an aggregate that has one or two items in a state."""

    merge: Callable[[Sequence[Column]], State]
    """From the columns that begin with the first item to the items of the merged state."""
    show: Callable[[Text, Text], str]
    """From these items to the JSON text of the field. Without a bucket, the items are None."""


def merge(fields: Sequence[CombinedField], states: Sequence[State]) -> State:
    """Returns the state of several buckets together. states: at least one, in the order of buckets."""
    columns: list[Column] = list(zip(*states, strict=True))
    merged: list[Text] = [None] * len(columns)
    for field in fields:
        if field.order:
            merged[field.at] = _merge_in_order(field, columns[field.at])
        elif field.function:
            items = _FUNCTIONS[field.function].merge(columns[field.at :])
            merged[field.at : field.at + len(items)] = items
    return merged


def assemble(fields: Sequence[CombinedField], of_root: bytes, states: Sequence[State]) -> bytes:
    """Returns the document as JSON text.

    of_root: the document without its combined fields. states: of all buckets, in their order.
    """
    own, merged = _texts(of_root.decode()), merge(fields, states) if states else ()
    shown = []
    for field in fields:
        first, second = (*merged[field.at : field.at + 2], None, None)[:2]
        if field.order:
            text = _show_in_order(field, first)
        elif field.function:
            text = _FUNCTIONS[field.function].show(first, second)
        else:
            text = own[field.name]
        shown.append(f"{_name(field.name)}:{text}")
    return f"{{{','.join(shown)}}}".encode()


@cache
def _name(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _texts(text: str) -> dict[str, str]:
    """Returns the fields of a JSON object with the texts of their values, unchanged.

    text: as `row_to_json` writes it, without spaces between its parts.
    """
    found: dict[str, str] = {}
    at = 1
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        _, stop = _DECODER.raw_decode(text, end + 1)
        found[name] = text[end + 1 : stop]
        at = stop + (text[stop] == ",")
    return found


def _present(column: Column) -> Iterable[str]:
    return filter(None, column)  # no item is an empty text


def _count(columns: Sequence[Column]) -> State:
    return [str(sum(map(int, _present(columns[0]))))]


def _show_count(count: Text, _: Text) -> str:
    return count or "0"


def _sum(columns: Sequence[Column]) -> State:
    """Adds exactly. The sum keeps the largest number of decimal places, as PostgreSQL's does."""
    values = list(map(Decimal, _present(columns[0])))
    if not values:
        return [None]
    with localcontext(_EXACT):
        return [str(sum(values[1:], values[0]))]


def _show_sum(total: Text, _: Text) -> str:
    return "null" if total is None else _json(Decimal(total))


def _average(columns: Sequence[Column]) -> State:
    return [*_sum(columns), *_count(columns[1:])]


def _show_average(total: Text, count: Text) -> str:
    values = int(count or 0)
    return "null" if total is None or not values else _json(divide(Decimal(total), values))


def divide(total: Decimal, count: int) -> Decimal:
    """Returns `total / count` with the number of decimal places that PostgreSQL chooses for a quotient of numerics.

    `select_div_scale` in PostgreSQL's src/backend/utils/adt/numeric.c: at least 16 significant digits, counted in
    groups of four digits, and never less than the places of the total.
    """
    if not total.is_finite():
        return total
    places = -int(total.as_tuple().exponent)
    first, weight = _leading_group(total)
    other, other_weight = _leading_group(Decimal(count))
    quotient_weight = weight - other_weight - (first <= other)
    scale = min(max(16 - 4 * quotient_weight, places, 0), 1000)
    # Digits beyond the last place cannot round twice: the quotient is exact, or computed to many more places.
    return _quotient(total, count, scale)


def _quotient(total: Decimal, count: int, scale: int) -> Decimal:
    """Returns the quotient, rounded half away from zero to `scale` places. Uses integers, so it is exact."""
    exponent = int(total.as_tuple().exponent)
    whole = abs(int(total.scaleb(-exponent, _EXACT)))
    numerator, denominator = whole * 10 ** max(0, scale + exponent), count * 10 ** max(0, -scale - exponent)
    quotient, rest = divmod(numerator, denominator)
    quotient += 2 * rest >= denominator
    return Decimal(-quotient if total.is_signed() else quotient).scaleb(-scale, _EXACT)


def _leading_group(value: Decimal) -> tuple[int, int]:
    """Returns the first group of four digits of a number, and its power of 10,000. Returns 0 and 0 for zero."""
    _, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return 0, 0
    magnitude = len(text) + int(exponent)  # the number of digits before the decimal point
    weight = -(-magnitude // 4) - 1
    width = magnitude - 4 * weight
    return int(text[:width].ljust(width, "0")), weight


def _extreme(extreme: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Column]], State]:
    """extreme: `min` or `max`."""

    def combine(columns: Sequence[Column]) -> State:
        items = list(zip(_present(columns[0]), _present(columns[1]), strict=True))
        if not items:
            return [None, None]
        items.reverse()  # of equal values, PostgreSQL keeps the last one
        numbers = [Decimal(number) for number, _ in items]
        if any(map(Decimal.is_nan, numbers)):  # NaN is greater than all numbers
            keys = [(number.is_nan(), Decimal(0) if number.is_nan() else number) for number in numbers]
            return items[keys.index(extreme(keys))]
        return items[numbers.index(extreme(numbers))]

    return combine


def _show_extreme(_: Text, shown: Text) -> str:
    return shown or "null"


def _boolean(any_or_all: Callable[[list[bool]], bool]) -> Callable[[Sequence[Column]], State]:
    def combine(columns: Sequence[Column]) -> State:
        values = [item == "true" for item in _present(columns[0])]
        return [None if not values else "true" if any_or_all(values) else "false"]

    return combine


def _show_boolean(value: Text, _: Text) -> str:
    return value or "null"


def _merge_in_order(field: CombinedField, column: Column) -> Text:
    """Merges the first rows of all buckets, of which each is sorted. For `first`, each item is one row."""

    def key(row: Sequence[Text]) -> list[tuple[int, int, Decimal | int]]:
        return [_sort_value(text, kind) for text, kind in zip(row, field.order, strict=False)]

    found = list(map(orjson.loads, _present(column)))
    if not found:
        return None
    if field.function == "first":
        return orjson.dumps(min(found, key=key)).decode()
    return orjson.dumps(list(islice(merge_sorted(*found, key=key), field.limit))).decode()


def _show_in_order(field: CombinedField, item: Text) -> str:
    if field.function == "first":
        return "null" if item is None else _element(orjson.loads(item))
    return f"[{','.join(map(_element, orjson.loads(item or '[]')))}]"


def _element(row: Sequence[Text]) -> str:
    """Returns the JSON text of the document's element, without the array around it."""
    return (row[-1] or "")[1:-1]


def _sort_value(text: str | None, kind: SortKey) -> tuple[int, int, Decimal | int]:
    """Returns a value that sorts as PostgreSQL sorts this one: NULLs at an end, and NaN above all numbers."""
    if text is None:
        return (-1 if kind.nulls_first else 1), 0, 0
    value = int(text.replace("-", ""), 16) if kind.is_uuid else Decimal(text)
    nan = isinstance(value, Decimal) and value.is_nan()
    if nan:
        value = 0
    if kind.descending:
        return 0, -nan, value.copy_negate() if isinstance(value, Decimal) else -value
    return 0, int(nan), value


def _json(value: Decimal) -> str:
    if value.is_nan():
        return '"NaN"'
    if value.is_infinite():
        return '"Infinity"' if value > 0 else '"-Infinity"'
    return format(value, "f")


_FUNCTIONS: Mapping[str, _Function] = {
    "count": _Function(_count, _show_count),
    "sum": _Function(_sum, _show_sum),
    "avg": _Function(_average, _show_average),
    "min": _Function(_extreme(min), _show_extreme),
    "max": _Function(_extreme(max), _show_extreme),
    "bool_and": _Function(_boolean(all), _show_boolean),
    "bool_or": _Function(_boolean(any), _show_boolean),
}
