"""A world for combined partials: an application, the real resolver, PostgreSQL, and a sink in memory.

The application writes devices, their readings, and the sensors of readings. After each of its statements, the documents
that were combined from partials are compared with the documents that one statement renders.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from syncer.clock import version
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse, tables
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import Batch, Outcome, batch, parse_id
from syncer.events import ChangeEvent, TableName
from syncer.pipeline.combine import CombiningSink
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.route import Route
from syncer.ports import Sink, StoredPartial, StoredPartials
from syncer.postgres.catalog import load
from syncer.postgres.session import PINNED
from syncer.postgres.snapshot_reader import SnapshotReader
from tests.harness.database import Database

DEVICES = """
name: devices
root: {table: public.devices}
where: name <> 'hidden'
relations:
  place: {one: public.sensors, on: {id: id}}
  readings:
    many: public.readings
    on: {device_id: id}
    where: sensor.active
    relations: {sensor: {one: public.sensors, on: {id: sensor_id}}}
    partials: {by: id, size: 4}
document:
  name: name
  readings: count(readings)
  total: sum(readings.value)
  mean: avg(readings.value)
  place: place.name
  low: min(readings.value)
  high: max(readings.value)
  newest: max(readings.at)
  extreme: min(readings.value) filter (where readings.value > 5 or readings.value < 0)
  weighted: sum(readings.value * readings.sensor.factor) filter (where readings.value > 0)
  any: bool_or(readings.value > 5)
  all: bool_and(readings.value > -3)
  named: {object: {upper: upper(name)}}
  earliest: first(readings.value order by readings.at)
  latest: last(readings.at order by readings.at) filter (where readings.value > 0)
  slowest: last(readings.sensor.name order by readings.sensor.factor, readings.value desc nulls last)
sink: {memory: {}}
"""
SCHEMA = (
    "CREATE TABLE devices (id int PRIMARY KEY, name text)",
    "CREATE TABLE sensors (id int PRIMARY KEY, name text, factor numeric NOT NULL, active boolean NOT NULL)",
    """CREATE TABLE readings (id bigint PRIMARY KEY, device_id int, sensor_id int, value numeric,
           at timestamptz NOT NULL DEFAULT '2026-01-01', local_at timestamp NOT NULL DEFAULT '2026-01-01',
           day date NOT NULL DEFAULT '2026-01-01', ratio float8,
           uid uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', kind int NOT NULL DEFAULT 0)""",
    "CREATE INDEX ON readings (device_id, id)",
    *(f"ALTER TABLE {table} REPLICA IDENTITY FULL" for table in ("devices", "sensors", "readings")),
    "INSERT INTO sensors VALUES (1, 'one', 1, true), (2, 'two', 0.5, true), (3, 'three', 2.25, false)",
)


GROUPS = """
name: days
root:
  table: public.readings
  group: {device_id: device_id, date: "date_trunc('day', at, 'UTC')"}
  nulls: drop
  partials: {by: id, size: 4}
where: sensor.active
relations:
  device: {one: public.devices, on: {id: device_id}}
  sensor: {one: public.sensors, on: {id: sensor_id}}
document:
  device: device.name
  date: date
  rows: count(*)
  high_rows: count(*) filter (where value > 1)
  ids: count(distinct id)
  total: sum(value)
  mean: avg(value)
  low: min(value)
  newest: max(at)
  weighted: sum(value * sensor.factor) filter (where value > 0)
  any: bool_or(value > 5)
  named: {object: {upper: upper(device.name)}}
  earliest: first(value order by at)
  slowest: last(sensor.name order by sensor.factor, value desc nulls last)
sink: {memory: {}}
"""
"""The readings of a device on one day."""

DIVISIONS = ("by: id, size: 4", "by: at, size: 1h", "by: local_at, size: 90m", "by: day, size: 2d")
TIMES = (
    *(f"2026-03-29 0{hour}:{rest}" for hour in range(4) for rest in ("00:00", "29:59.999999", "59:59.999999")),
    "1969-12-31 23:59:59.999999",
    "1970-01-01 00:00:00",
    "1970-01-01 01:30:00",
    "1969-12-31 22:00:00",
    "0044-03-15 12:00:00 BC",
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "10000-01-01 00:00:00",
    "infinity",
    "-infinity",
)
"""Bounds of buckets, both sides of 1970, a night without the hour from 2 to 3 in Berlin, and times without a number."""

RATIOS = ("NULL", "'NaN'", "'Infinity'", "'-Infinity'", "0", "'-0'", "0.1", "1e300", "-1e-300")


class Memory:
    """A sink in memory that stores partials."""

    name, in_place = "memory", True

    def __init__(self) -> None:
        self.partials: dict[str, dict[str, StoredPartial]] = {}
        self.documents: dict[str, tuple[int, bytes | None]] = {}
        self.drop_empty: Callable[[bytes], bool] = lambda _: False

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        for id, parts in partials.items():
            for bucket, body in parts.items():
                known = self.partials.setdefault(id, {})
                if version > known.get(bucket, StoredPartial(0, None)).version:
                    known[bucket] = StoredPartial(version, body)
                    if body is not None and self.drop_empty(body):
                        del known[bucket]
        return {id: dict(self.partials[id]) for id in partials}

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        return {id: dict(self.partials[id]) for id in ids if id in self.partials}

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        yield from ((id, bucket) for id, parts in self.partials.items() for bucket in parts)

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        for id in batch.ids():
            version = batch.version_of(id)
            if version > self.documents.get(id, (0, None))[0]:
                self.documents[id] = version, batch.upserts.get(id)
        return Outcome()

    def ids(self, since: str = "") -> Iterator[str]:
        yield from (id for id, (_, body) in self.documents.items() if body is not None)


class World:
    """The application, and the stages of the pipeline for one change at a time."""

    def __init__(self, database: Database, division: str = DIVISIONS[0], declaration: str = DEVICES) -> None:
        self.database, self.memory = database, Memory()
        model = parse(declaration.replace(DIVISIONS[0], division), "m.yaml")
        with database.connect() as connection:
            for name, value in PINNED.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            self.compiled: Compiled = compile(model, load(connection, tables(model)))
        self.sink = self.combining()
        arguments: dict[str, Any] = {"conninfo": database.dsn}
        self.rows = SnapshotReader(arguments, self.compiled.rendered)
        self.whole = SnapshotReader(arguments, self.compiled)
        self.read(self.compiled.rendered)
        self.connection = database.connect()
        self.weaken: Callable[[ChangeEvent], ChangeEvent] = lambda change: change

    def read(self, parts: Compiled) -> None:
        """Finds the partials of changed rows with this read model of the partials."""
        self.route, self.resolve = Route(parts), Resolve(parts)

    def combining(self) -> CombiningSink:
        assert self.compiled.partials is not None
        return CombiningSink(cast(Sink, self.memory), self.compiled.partials, "devices")

    def row(self, table: str, id: int) -> dict[str, Any] | None:
        """Returns a row as change events have it: numerics as texts."""
        found = self.connection.execute(f"SELECT to_jsonb(r) FROM {table} r WHERE id = {id}".encode()).fetchone()
        if found is None:
            return None
        return {k: str(v) if isinstance(v, float) else v for k, v in found[0].items()}

    def change(self, table: str, id: int, statement: str, new: int | None = None) -> None:
        """Runs a statement on one row. new: its id afterwards."""
        before = self.row(table, id)
        self.connection.execute(statement.encode())
        after = self.row(table, id if new is None else new)
        name = TableName("public", table)
        if before and after and new not in (None, id):  # as the connector does when a primary key changes
            self.handle(ChangeEvent(name, "d", before, None, None, 0))
            self.handle(ChangeEvent(name, "c", None, after, None, 0))
        elif before or after:
            self.handle(ChangeEvent(name, "u" if before and after else "d" if before else "c", before, after, None, 0))

    def handle(self, change: ChangeEvent) -> None:
        change, dirty = self.weaken(change), Dirty()
        self.resolve(change, self.route(change), dirty)
        with self.rows.view() as view:
            keys = dict(dirty.keys)
            for lookup, values in dirty.lookups.items():
                keys |= dict.fromkeys(view.look_up(lookup, values))
            if not keys:
                return
            clock = view.head.snapshot.clock
            self.sink.write(batch(view.render(list(keys)), version(1, clock)))

    def backfill(self) -> None:
        with self.rows.view() as view:
            low = None
            for high in list(view.boundaries(3)):
                rows = view.render_range(low, high)
                assert [row.asked for row in rows]
                assert len(view.keys_in_range(low, high)) == len(rows)
                self.sink.write(batch(rows, version(1, view.head.snapshot.clock)))
                low = high

    def fill_again(self) -> None:
        """Fills an empty sink by a backfill."""
        self.memory = Memory()
        self.sink = self.combining()
        self.backfill()

    def forget_deleted(self) -> None:
        """Forgets the partials of deleted documents, as Redis does after a while."""
        for id, parts in list(self.memory.partials.items()):
            of_root = parts.get(ROOT_PARTIAL)
            if of_root is not None and of_root.body is None:
                del self.memory.partials[id]
                self.memory.documents.pop(id, None)

    def differences(self) -> list[str]:
        with self.whole.view() as view:
            known = (parse_id(id, len(self.compiled.key)) for id in self.memory.documents)
            keys = dict.fromkeys([*view.first_keys(1000), *known])
            expected = {row.asked: row.body for row in view.render(list(keys))} if keys else {}
        shown = {id: self.memory.documents.get(id, (0, None))[1] for id in expected}
        return [f"{id}: {shown[id]!r} != {expected[id]!r}" for id in expected if shown[id] != expected[id]]

    def step(self, random: random.Random) -> None:
        device, sensor, id = random.randrange(5), random.randrange(1, 4), random.randrange(20) - 5
        value = random.choice(["1", "2.50", "-3", "0.125", "7", "NULL", "100000000000000000000.1", "1.00"])
        match random.randrange(14):
            case 0 | 1 | 2 | 3:
                times = ", ".join(f"'{random.choice(TIMES)}'" for _ in range(3))
                ratio, uid = random.choice(RATIOS), f"pg_catalog.md5('{random.randrange(40)}')::uuid"
                others = f"{times}, {ratio}, {uid}, {random.randrange(6)}"
                self.change(
                    "readings",
                    id,
                    f"INSERT INTO readings VALUES ({id}, {device}, {sensor}, {value}, {others}) "
                    "ON CONFLICT (id) DO UPDATE "
                    "SET device_id = excluded.device_id, value = excluded.value, sensor_id = excluded.sensor_id",
                )
            case 12 | 13:
                column = random.choice(["at", "local_at", "day", "kind"])
                new_value = random.randrange(6) if column == "kind" else random.choice(TIMES)
                self.change("readings", id, f"UPDATE readings SET {column} = '{new_value}' WHERE id = {id}")
            case 4:
                other = random.randrange(20, 40)
                if self.row("readings", other) is not None:
                    return
                self.change("readings", id, f"UPDATE readings SET id = {other} WHERE id = {id}", other)
            case 5:
                self.change("readings", id, f"DELETE FROM readings WHERE id = {id}")
            case 6:
                self.change("devices", device, f"DELETE FROM devices WHERE id = {device}")
            case 7 | 8:
                name = random.choice(["a", "hidden", 'q"', "ä"])
                self.change(
                    "devices",
                    device,
                    f"INSERT INTO devices VALUES ({device}, '{name}') ON CONFLICT (id) DO UPDATE SET name = '{name}'",
                )
            case 9:
                self.change("sensors", sensor, f"UPDATE sensors SET active = NOT active WHERE id = {sensor}")
            case 10:
                self.change("sensors", sensor, f"UPDATE sensors SET factor = factor + 0.1 WHERE id = {sensor}")
            case _:
                self.change("readings", id, f"UPDATE readings SET device_id = {device} WHERE id = {id}")

    def close(self) -> None:
        self.rows.close()
        self.whole.close()
        self.connection.close()


def found_within(world: World, steps: int, *, forgets: bool = False) -> list[str]:
    """Returns the first differences of a generated history; none if all documents are right after each step.

    forgets: whether the sink forgets the partials of deleted documents after each step.
    """
    chosen = random.Random(4)
    for _ in range(steps):
        world.step(chosen)
        if forgets:
            world.forget_deleted()
        if found := world.differences():
            return found
    return []


@contextmanager
def opened(database: Database, division: str = DIVISIONS[0], declaration: str = DEVICES) -> Iterator[World]:
    """Creates the tables in an empty database, and yields the world."""
    database.execute(*SCHEMA)
    world = World(database, division, declaration)
    try:
        yield world
    finally:
        world.close()
