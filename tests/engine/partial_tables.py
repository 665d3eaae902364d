"""Tables for read models with partials: the root `a`, the divided table `b`, and a table `c` to join.

Key columns are k and l. The other columns of `b` are the link to the root (p, q), a column for buckets (r) and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from tests.engine.arbitrary import ODD
from tests.engine.schema import VALUES, Column, Schema, Table

Draw = Callable[[st.SearchStrategy[Any]], Any]
Link = tuple[tuple[str, str], ...]
"""Pairs of columns: of the divided table, and of the root."""
LINKED = {
    "integer": ("integer", "integer", "bigint"),
    "bigint": ("bigint", "integer"),
    "text": ("text", "varchar"),
    "varchar": ("varchar", "text"),
    "uuid": ("uuid",),
}
"""By type of a root's key column: the types that can be linked to it."""
ROOT_KEYS = ["integer"] * 5 + ["bigint", "text", "varchar", "uuid"]
OTHER_KEYS = ["integer"] * 5 + ["bigint", "numeric", "uuid", "date", "timestamptz", "text"]
TYPES = ["integer"] * 5 + ["numeric"] * 3 + ["boolean", "boolean", "date", "text", "bigint", "rare"]
RARE = ["timestamp", "timestamptz", "uuid", "varchar", "character(3)", "bytea", "mood"]
DAYS = ("-infinity", "0001-01-01", "1969-12-31", "1970-01-01", "1970-01-05", "2024-02-29", "9999-12-31", "infinity")
SECONDS = (
    *("-infinity", "0001-01-01 00:00:00", "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00", "1970-01-01 01:29:59"),
    *("2024-03-31 00:59:59.999999", "2024-03-31 01:00:00", "2024-03-31 02:00:00", "9999-12-31 23:59:59", "infinity"),
)
DIVIDED: dict[str, tuple[tuple[Any, ...], tuple[int | str, ...]]] = {
    "integer": ((-4, -3, -1, 0, 1, 2, 3, 5), (2, 3, 5000)),
    "bigint": ((-(1 << 63), -3, -1, 0, 1, 2, 5, (1 << 63) - 1), (2, 3, 5000)),
    "date": (DAYS, ("1d", "2d", "7d")),
    "timestamp": (SECONDS, ("1s", "90m", "1h", "7d")),
    "timestamptz": (SECONDS, ("1s", "90m", "1h", "7d")),
}
"""By type of a bucket column: its values, on both sides of the bounds of buckets, and sizes."""
KEYS: dict[str, tuple[Any, ...]] = {
    "integer": (*range(10), 10, 11, 100),
    "bigint": (*range(10), 10, (1 << 53) + 1),
    "numeric": tuple(map(Decimal, ("-1.5", "1", "1.00", "2.5", "9", "10", "10.5", "11", "100"))),
    "uuid": tuple(UUID(int=n << 120) for n in (0, 1, 9, 10, 16, 128, 129, 255)),
    "date": tuple(date(2024, 2, 27) + timedelta(days=n) for n in range(9)),
}
"""By type of a key column of the divided table: enough values for several rows of one root in several buckets."""
NUMBERS: dict[str, tuple[Any, ...]] = {
    "integer": (-2, 0, 1, 2, 9, 10),
    "bigint": (-2, 0, 1, 2, 10, (1 << 53) + 1),
    "numeric": tuple(map(Decimal, ("-3", "1", "1.00", "2.5", "10"))),
}
"""By type of another column of the divided table: values whose order is not that of their texts."""


@st.composite
def divided_schemas(draw: Draw) -> tuple[Schema, Link, str, int | str]:
    """Draws the tables. Returns them with the link, the column of the buckets and the size of the buckets."""
    odd = draw(st.integers(0, 4)) == 4

    def named(name: str) -> str:
        return ODD.get(name, name) if odd else name

    root = Table(
        named("a"),
        (*_keys(draw, named, ROOT_KEYS), *_others(draw, named, "pqrs"[: draw(st.integers(1, 3))])),
        (),
    )
    root = _few_keys(draw, _keyed(root))
    keys = [replace(key, values=KEYS.get(key.type, ())) for key in _keys(draw, named, OTHER_KEYS)]
    columns: list[Column] = list(keys)
    link: list[tuple[str, str]] = []
    for letter, name in zip("pq", root.key, strict=False):
        fitting = LINKED[root.column(name).type]
        taken = {own for own, _ in link}
        inside = [c.name for c in keys if c.type in fitting and c.name not in taken]
        if inside and draw(st.integers(0, 3)) == 3:
            link.append((draw(st.sampled_from(inside)), name))
        else:
            type = draw(st.sampled_from(fitting))
            fits = [v for v in root.column(name).values if type != "integer" or v < 1 << 31]
            columns.append(Column(named(letter), type, draw(st.booleans()), values=tuple(fits)))
            link.append((columns[-1].name, name))
    dividing = [c for c in columns if c.not_null and c.type in DIVIDED]
    if dividing and draw(st.integers(0, 3)) == 3:
        by = draw(st.sampled_from(dividing))
    else:
        type = draw(st.sampled_from(sorted(DIVIDED)))
        by = Column(named("r"), type, True, values=DIVIDED[type][0])
        columns.append(by)
    others = _others(draw, named, "stu"[: draw(st.integers(1, 3))])
    columns += [replace(other, values=NUMBERS.get(other.type, ())) for other in others]
    partitioned = draw(st.integers(0, 5)) == 5
    divided = Table(named("b"), tuple(columns), tuple(c.name for c in keys), partitioned=partitioned)
    third = _keyed(Table(named("c"), (Column(named("k"), "integer", True, key=True), *_others(draw, named, "pqr")), ()))
    size = draw(st.sampled_from(DIVIDED[by.type][1]))
    return Schema((root, divided, third), odd), tuple(link), by.name, size


def _few_keys(draw: Draw, root: Table) -> Table:
    """Lets the key columns of the root have few values, so that each root has several rows."""
    few = 3 if len(root.key) == 1 else 2
    return replace(
        root,
        columns=tuple(
            replace(c, values=tuple(draw(st.permutations(VALUES[c.type])))[:few]) if c.key else c for c in root.columns
        ),
    )


def _keys(draw: Draw, named: Callable[[str], str], types: list[str]) -> list[Column]:
    count = draw(st.sampled_from([1, 1, 1, 2]))
    return [Column(named(k), draw(st.sampled_from(types)), True, key=True) for k in "kl"[:count]]


def _others(draw: Draw, named: Callable[[str], str], letters: str) -> list[Column]:
    return [Column(named(c), _type(draw), draw(st.integers(0, 2)) == 2) for c in letters]


def _type(draw: Draw) -> str:
    type: str = draw(st.sampled_from(TYPES))
    return draw(st.sampled_from(RARE)) if type == "rare" else type


def _keyed(table: Table) -> Table:
    return Table(table.name, table.columns, tuple(c.name for c in table.columns if c.key))
