"""Combines the states of buckets (`declaration/partial_states.py`), and assembles the document. Pure.

The result has the text that PostgreSQL writes when it renders the whole document at once.

A document may have thousands of buckets, and it is combined for each change. So the functions take a column, which is
one state of all buckets, and leave the loops to functions of Python that are written in C.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_UP, Context, Decimal, localcontext
from heapq import merge
from itertools import islice
from typing import Any

import orjson

from syncer.declaration.compiled import CombinedField, SortKey

_EXACT = Context(prec=160_000, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_UP, traps=[])
"""PostgreSQL's numeric has at most 131,072 digits before and 16,383 after the decimal point. Infinity − Infinity is
NaN, as in PostgreSQL. ROUND_HALF_UP rounds halves away from zero."""
_DECODER = json.JSONDecoder()
Column = Sequence[str | None]
"""One state of all buckets, in the order of buckets."""


def assemble(fields: Sequence[CombinedField], of_root: bytes, of_buckets: Sequence[bytes]) -> bytes:
    """Returns the document as JSON text.

    of_root: the document without its combined fields. of_buckets: the states of each bucket, in the order of buckets.
    """
    own = _texts(of_root.decode())
    columns: list[Column] = list(zip(*map(orjson.loads, of_buckets), strict=True))
    shown = []
    for field in fields:
        states = columns[field.at :] or ((), ())  # no bucket: no column
        if field.order:
            text = _in_order(field, states[0])
        elif field.function:
            text = _COMBINE[field.function](states)
        else:
            text = own[field.name]
        shown.append(f"{json.dumps(field.name, ensure_ascii=False)}:{text}")
    return f"{{{','.join(shown)}}}".encode()


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


def _count(states: Sequence[Column]) -> str:
    return str(sum(map(int, _present(states[0]))))


def _sum(states: Sequence[Column]) -> str:
    total = _total(states[0])
    return "null" if total is None else _json(total)


def _average(states: Sequence[Column]) -> str:
    total, count = _total(states[0]), sum(map(int, _present(states[1])))
    return "null" if total is None or not count else _json(divide(total, count))


def _total(column: Column) -> Decimal | None:
    """Returns the exact sum. It keeps the largest number of decimal places, as PostgreSQL's does."""
    values = list(map(Decimal, _present(column)))
    if not values:
        return None
    with localcontext(_EXACT):
        return sum(values[1:], values[0])


def _present(column: Column) -> Iterable[str]:
    return filter(None, column)  # a state is no empty text


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
    sign, digits, exponent = total.as_tuple()
    whole = int("".join(map(str, digits)))
    numerator, denominator = whole * 10 ** max(0, scale + int(exponent)), count * 10 ** max(0, -scale - int(exponent))
    quotient, rest = divmod(numerator, denominator)
    quotient += 2 * rest >= denominator
    return Decimal((sign if quotient else 0, tuple(map(int, str(quotient))), -scale))


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


def _extreme(extreme: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Column]], str]:
    def combine(states: Sequence[Column]) -> str:
        shown = list(_present(states[1]))
        if not shown:
            return "null"
        numbers = list(map(Decimal, _present(states[0])))
        numbers.reverse()  # of equal values, PostgreSQL keeps the last one
        if any(map(Decimal.is_nan, numbers)):
            found = _with_nan(extreme, numbers)
        else:
            found = numbers.index(extreme(numbers))
        return shown[-1 - found]

    return combine


def _with_nan(extreme: Callable[[Sequence[Any]], Any], numbers: Sequence[Decimal]) -> int:
    """Returns the index of the first extreme. NaN is greater than all numbers, as in PostgreSQL."""
    keys = [(number.is_nan(), Decimal(0) if number.is_nan() else number) for number in numbers]
    return keys.index(extreme(keys))


def _in_order(field: CombinedField, states: Column) -> str:
    """Returns the first row of all buckets, or a list of the first rows. Each bucket has its own first rows, sorted."""

    def key(row: Sequence[str | None]) -> list[tuple[int, int, Decimal | int]]:
        return [_sort_value(text, kind) for text, kind in zip(row, field.order, strict=False)]

    found = list(map(orjson.loads, _present(states)))
    if field.function == "first":
        return _element(min(found, key=key)) if found else "null"
    return f"[{','.join(map(_element, islice(merge(*found, key=key), field.limit)))}]"


def _element(row: Sequence[str | None]) -> str:
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


def _boolean(any_or_all: Callable[[list[bool]], bool]) -> Callable[[Sequence[Column]], str]:
    def combine(states: Sequence[Column]) -> str:
        values = [state == "true" for state in _present(states[0])]
        return "null" if not values else "true" if any_or_all(values) else "false"

    return combine


def _json(value: Decimal) -> str:
    if value.is_nan():
        return '"NaN"'
    if value.is_infinite():
        return '"Infinity"' if value > 0 else '"-Infinity"'
    return format(value, "f")


_COMBINE: Mapping[str, Callable[[Sequence[Column]], str]] = {
    "count": _count,
    "sum": _sum,
    "avg": _average,
    "min": _extreme(min),
    "max": _extreme(max),
    "bool_and": _boolean(all),
    "bool_or": _boolean(any),
}
