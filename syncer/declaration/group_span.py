"""Finds bounds of a column for the rows of one group, so that a plain index on the column finds them.

`date_trunc('hour', taken_at, 'UTC') = '12:00'` implies `taken_at` between 12:00 and 13:00. An index on `taken_at` knows
nothing of the expression, but it serves the bounds. The statements always compare the expression, too. So bounds may be
too wide, and never too narrow. In a zone other than UTC, a day has 23 or 25 hours, and a local time can exist twice.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlglot import exp

from syncer.declaration.catalog import Table
from syncer.declaration.names import find, literal
from syncer.declaration.sql_parser import path_of
from syncer.declaration.sql_types import TIMES

_HOURS = {
    "second": 1 / 3600,
    "minute": 1 / 60,
    "hour": 1,
    "day": 24,
    "week": 7 * 24,
    "month": 31 * 24,
    "quarter": 92 * 24,
    "year": 366 * 24,
}
"""The greatest length of each unit of `date_trunc`, in hours."""
_WITHIN_HOUR = ("second", "minute", "hour")
_UTC = frozenset(("utc", "gmt", "etc/utc", "etc/gmt", "uct", "z", "zulu", "etc/zulu", "etc/uct", "universal"))
_OFFSET = 16
"""Hours. PostgreSQL's offsets from UTC are smaller (`MAX_TZDISP_HOUR` is 15)."""


class Span(NamedTuple):
    """For each row of a group with the value e: e - before <= column <= e + after."""

    column: str
    before: str
    """An interval as SQL; empty for zero."""
    after: str

    def low(self, value: str) -> str:
        """Returns the lowest value of the column in the group of this value, as SQL."""
        return f"({value} - {self.before})" if self.before else value

    def high(self, value: str) -> str:
        return f"({value} + {self.after})"


def span_of(tree: exp.Expr, table: Table) -> Span | None:
    """Returns the bounds of a column that a group expression implies, or None."""
    while isinstance(tree, exp.Paren):
        tree = tree.this
    if isinstance(tree, exp.Cast) and isinstance(tree.args["to"], exp.DataType):
        return _span(tree.this, table, 24, "day") if tree.args["to"].this is exp.DType.DATE else None
    if not isinstance(tree, exp.Anonymous) or str(tree.this).lower() != "date_trunc" or len(tree.expressions) < 2:
        return None
    unit = str(tree.expressions[0].this).lower() if tree.expressions[0].args.get("is_string") else ""
    if unit not in _HOURS:
        return None
    zone = tree.expressions[2] if len(tree.expressions) > 2 else None
    return _span(tree.expressions[1], table, _HOURS[unit], unit, zone)


def _span(tree: exp.Expr, table: Table, hours: float, unit: str, zone: exp.Expr | None = None) -> Span | None:
    """Returns the bounds of the column in `tree`. hours: the greatest length of a group."""
    while isinstance(tree, exp.Paren):
        tree = tree.this
    before = 0
    if isinstance(tree, exp.AtTimeZone):  # the group has a local time, or the instant of one
        if zone is not None:
            return None
        if not is_utc(tree.args["zone"]):
            before = _OFFSET
        tree = tree.this
    if zone is not None and not is_utc(zone) and unit not in _WITHIN_HOUR:
        before = 2 * _OFFSET  # the offset of a group's beginning may differ from that of a row
    path = path_of(tree)
    column = find(path[0], table.columns) if path is not None and len(path) == 1 else None
    if column is None or column.base not in TIMES:
        return None
    return Span(column.name, _interval(before) if before else "", _interval(hours + before))


def _interval(hours: float) -> str:
    """Returns an interval in seconds. Days and months would depend on the session's time zone."""
    return f"{literal(f'{round(hours * 3600)} seconds')}::pg_catalog.interval"


def is_literal_zone(zone: exp.Expr) -> bool:
    return isinstance(zone, exp.Literal) and bool(zone.args.get("is_string"))


def is_utc(zone: exp.Expr) -> bool:
    return is_literal_zone(zone) and str(zone.this).lower() in _UTC
