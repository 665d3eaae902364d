"""Buckets of times on a real server: each value is in exactly one bucket, and in the same one in every time zone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest

from syncer.declaration import partial_buckets, partial_states
from syncer.declaration.catalog import Column
from syncer.declaration.compile import TableUse
from syncer.declaration.form import Partials
from syncer.declaration.partial_buckets import Buckets, buckets
from syncer.events import ChangeEvent
from syncer.pipeline.route import Route
from tests.harness import Database
from tests.harness.partials import DIVISIONS, found_within, opened

SIZES = ["1s", "7s", "90s", "1h", "5h", "1d", "7d", "36500d"]
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"]
TYPES = {"timestamp with time zone": "timestamptz", "timestamp without time zone": "timestamp", "date": "date"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
TIMED = DIVISIONS[1:]
Session = psycopg.Connection[Any]


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.connect() as connection:
        yield connection


def divided(base: str, size: str) -> Buckets:
    """Returns the buckets of a column of this type."""
    return buckets(Partials(by="at", size=cast(Any, size)), Column("at", base, base, True))


def some_times(chosen: random.Random, size: timedelta) -> list[datetime]:
    """Returns times at the bounds of buckets, a microsecond before and after them, and anywhere."""
    found = [FIRST, LAST, EPOCH, EPOCH - timedelta(microseconds=1)]
    numbers = (FIRST - EPOCH) // size, (LAST - EPOCH) // size
    for _ in range(60):
        begin = EPOCH + chosen.randint(numbers[0] + 1, numbers[1]) * size
        found += [begin + timedelta(microseconds=offset) for offset in (0, 1)]
        found += [begin - timedelta(microseconds=1), FIRST + chosen.random() * (LAST - FIRST)]
    return found


@pytest.mark.parametrize(("base", "size"), [(b, size) for b in TYPES for size in SIZES if b != "date" or "d" in size])
def test_each_time_has_one_bucket(session: Session, base: str, size: str) -> None:
    width = cast(timedelta, Partials(by="at", size=cast(Any, size)).size)
    of, values = divided(base, size), some_times(random.Random(size), width)
    if base == "date":
        values = [value.replace(hour=0, minute=0, second=0, microsecond=0) for value in values]
    own, before = of.number("v"), f"({of.number('v')} - 1)"
    statement = (
        f"SELECT {of.number('v::text')}, v BETWEEN {of.low(own)} AND {of.high(own)}, "
        f"v BETWEEN {of.low(before)} AND {of.high(before)}, pg_typeof({of.low(own)})::text, "
        f"pg_typeof({of.high(own)})::text FROM unnest(%s::{TYPES[base]}[]) v"
    ).encode()
    for zone in ZONES:
        session.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
        shown = [value if base.endswith("with time zone") else value.replace(tzinfo=None) for value in values]
        rows = session.execute(statement, ([one.date() for one in shown] if base == "date" else shown,)).fetchall()
        for value, (number, inside, outside, *types) in zip(values, rows, strict=True):
            assert number == (value - EPOCH) // width, (value, zone)
            assert (inside, outside) == (True, False), (value, zone)
            assert types == [base, base]


@pytest.mark.parametrize("base", TYPES)
def test_times_outside_of_the_years_1_to_9999(session: Session, base: str) -> None:
    of = divided(base, "7d")
    extremes = {
        "-infinity": "0001-01-01",
        "4713-01-01 BC": "0001-01-01",
        "0044-03-15 BC": "0001-01-01",
        "10000-01-01": "9999-12-31",
        "294276-12-31": "9999-12-31",
        "infinity": "9999-12-31",
    }
    within = f"BETWEEN {of.low(of.number('v'))} AND {of.high(of.number('v'))}"
    statement = f"SELECT {of.number('v')} = {of.number('w')}, v {within}, w {within} FROM "
    statement += f"(VALUES (%s::{TYPES[base]}, %s::{TYPES[base]})) AS x(v, w)"
    for value, other in extremes.items():
        assert session.execute(statement.encode(), (value, other)).fetchone() == (True, True, True), value


@pytest.mark.parametrize(
    ("base", "size", "step"),
    [
        ("timestamp with time zone", "1h", "1 microsecond"),
        ("timestamp without time zone", "90s", "1 microsecond"),
        ("date", "7d", "1 day"),
    ],
)
def test_no_time_is_between_two_buckets(session: Session, base: str, size: str, step: str) -> None:
    of = divided(base, size)
    session.execute("SET TimeZone = 'Europe/Berlin'")
    adjacent = f"{of.high('n')} + interval '{step}' = {of.low('(n + 1)')}"
    rows = session.execute(f"SELECT n FROM generate_series(-9000, 9000) n WHERE NOT ({adjacent})".encode()).fetchall()
    assert rows == []


def test_weeks_begin_on_the_thursday_of_1970(session: Session) -> None:
    of = divided("date", "7d")
    found = session.execute(f"SELECT {of.low('0')}, {of.high('0')}, {of.low('(-1)')}".encode()).fetchone()
    assert found == (date(1970, 1, 1), date(1970, 1, 7), date(1969, 12, 25))


@pytest.mark.parametrize("division", TIMED)
def test_generated_histories(database: Database, division: str) -> None:
    with opened(database, division) as world:
        assert found_within(world, 400) == []
        world.fill_again()
        assert world.differences() == []


@pytest.mark.parametrize("division", TIMED)
def test_only_the_new_bucket(database: Database, division: str) -> None:
    """A weakened rule: an update makes the bucket of the new row dirty only."""
    with opened(database, division) as world:
        world.weaken = lambda change: change._replace(before=None) if change.op == "u" else change
        assert found_within(world, 400)


@pytest.mark.parametrize("division", TIMED)
def test_an_update_of_the_bucket_column_alone_is_ignored(database: Database, division: str) -> None:
    """A weakened rule: the column of the buckets does not count as used."""
    with opened(database, division) as world:
        assert world.compiled.partials is not None
        route, column = world.route, world.compiled.partials.by

        def weaker(change: ChangeEvent) -> list[TableUse]:
            before, after = change.before, change.after
            return [] if before and after and column in after and before[column] != after[column] else route(change)

        world.route = cast(Route, weaker)
        assert found_within(world, 1500)


@pytest.mark.parametrize("division", TIMED)
def test_times_are_truncated_towards_1970(database: Database, division: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weakened rule: the numbers of buckets are truncated instead of rounded down. The bounds stay as they are."""
    trunc = "pg_catalog.trunc({}::pg_catalog.numeric / {})::pg_catalog.int8"
    monkeypatch.setattr(partial_buckets, "_floor", trunc.format)
    with opened(database, division) as world:
        assert found_within(world, 400)


def test_numbers_are_compared_without_the_order_of_rows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weakened rule: of 1 and 1.00, which are equal, the one of the last bucket is shown."""
    monkeypatch.setattr(partial_states, "_in_order_of_rows", lambda node: True)
    with opened(database, "by: at, size: 1h") as world:
        assert found_within(world, 800)
