"""Compares numbers that PostgreSQL has with the limits of a sink, such as the scores of Redis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from syncer.checks.finding import Finding, quote
from syncer.declaration.field_source import FieldSource
from syncer.declaration.sql_types import NUMBERS, TIMES

_INTEGERS = ("smallint", "integer")
"""Types whose values are below every limit."""
_LARGEST_DIVISOR = 10**9
"""The largest divisor that a finding suggests."""
_LONGEST = 25
"""Characters of a number that a finding shows without an exponent."""


@dataclass(frozen=True, slots=True)
class LargestValue:
    """The value of a field that is the farthest from zero, of those that are known without reading the table."""

    value: Decimal
    """Of the field."""
    of_column: str
    """The value of the column that it was computed from."""
    seen_in: str
    """The index or the statistics that have the value: `the index …` or `the statistics …`."""
    current: bool
    """Whether a row has the value now. Otherwise, a row had it at the time of the last ANALYZE."""


def may_exceed(source: FieldSource) -> bool:
    """Returns whether values of this column can exceed a limit, and `LargestValue` can be read."""
    return source.type not in _INTEGERS and source.column.base in (*NUMBERS, *TIMES)


def check_limit(
    where: str, field: str, highest: int, why: str, source: FieldSource, largest: LargestValue
) -> Iterator[Finding]:
    """Finds that the sink would reject documents, because a field is farther from zero than `highest`.

    where: the place of the limit in the declaration. why: the reason for the limit.
    """
    if abs(largest.value) <= highest:
        return
    table = source.table.name
    rejects = "the sink rejects this document" if source.every_row else "the sink rejects a document with such a row"
    fix = _smaller(field, highest, source, largest)
    if not largest.current:
        fix += f"\nif no row of {table} has this value any more, run ANALYZE on the table"
    yield Finding(
        "error" if source.every_row else "warning",
        "number-limit",
        where,
        f"{field} is {_short(largest.value)} for a row of {table} with {source.column.name} = {largest.of_column}, "
        f"as {largest.seen_in} {'shows' if largest.current else 'show'}",
        f"{why}; {rejects}, and it becomes a dead letter",
        fix,
    )


def _smaller(field: str, highest: int, source: FieldSource, largest: LargestValue) -> str:
    """Returns the advice to declare a smaller number."""
    name = quote(source.column.name)
    advice = f"declare a smaller number as {field}"
    if source.column.base in TIMES:
        return f"{advice}, such as seconds: extract(epoch from {name})"
    divisor = 10
    while abs(largest.value) / divisor > highest:
        divisor *= 10
    if divisor > _LARGEST_DIVISOR:
        return advice
    text = source.text if source.text == name else f"({source.text})"
    return f"{advice}, such as {text} / {divisor}"


def _short(number: Decimal) -> str:
    text = f"{number:f}"
    return text if len(text) <= _LONGEST else f"{number:.6e}"
