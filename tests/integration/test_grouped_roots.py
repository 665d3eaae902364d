"""Documents of groups of rows: equal to GROUP BY after each change, on PostgreSQL alone and on all real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from syncer.declaration.compiled import Compiled, TableUse
from syncer.errors import Fatal
from syncer.events import ChangeEvent
from syncer.pacing import Waiter
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items
from syncer.registry import loader
from tests.harness import Database
from tests.harness.engine import Engine
from tests.harness.system import System
from tests.harness.waiting import until

TABLES = (
    "CREATE TABLE devices (id int PRIMARY KEY, name text NOT NULL, live boolean NOT NULL DEFAULT true)",
    """CREATE TABLE readings (
        id bigint PRIMARY KEY, device_id int NOT NULL, taken_at timestamptz NOT NULL, kind text, value numeric)""",
    "CREATE INDEX ON readings (device_id, taken_at)",
    "CREATE INDEX ON readings (kind)",
    "ALTER TABLE devices REPLICA IDENTITY FULL",
    "ALTER TABLE readings REPLICA IDENTITY FULL",
    "INSERT INTO devices VALUES (1, 'kitchen'), (2, 'attic')",
)
DAYS = """
name: days
root: {table: readings, group: {device_id: device_id, day: "date_trunc('day', taken_at, 'Europe/Berlin')"}}
where: device.live
relations: {device: {one: devices, on: {id: device_id}}}
document:
  device: device.name
  owner: {one: devices, on: {id: device_id}, document: {name: name}}
  readings: count(*)
  high: {object: {value: max(value), at: last(taken_at order by value nulls first)}}
  average: round(avg(value), 3)
  text: device_id || ' has ' || count(*)
sink: {memory: {}}
"""
EXPECTED_DAYS = """
SELECT device_id || '|' || date_trunc('day', taken_at, 'Europe/Berlin')::text, jsonb_build_object(
         'device', min(d.name), 'owner', jsonb_build_object('name', min(d.name)), 'readings', count(*), 'high',
         jsonb_build_object('value', max(value),
                            'at', (array_agg(taken_at ORDER BY value DESC NULLS LAST, r.id DESC))[1]),
         'average', round(avg(value), 3), 'text', device_id || ' has ' || count(*))
  FROM readings r JOIN devices d ON d.id = r.device_id WHERE d.live
 GROUP BY device_id, date_trunc('day', taken_at, 'Europe/Berlin')"""
KINDS = """
name: kinds
root: {table: readings, nulls: drop, group: {kind: kind}}
document: {kind: kind, readings: count(*), devices: count(distinct device_id), ids: array(id)}
sink: {memory: {}}
"""
EXPECTED_KINDS = """
SELECT kind, jsonb_build_object('kind', kind, 'readings', count(*), 'devices', count(DISTINCT device_id),
                                'ids', array_agg(id ORDER BY id)) FROM readings WHERE kind IS NOT NULL GROUP BY kind"""
REST = "document: {n: count(*)}\nsink: {memory: {}}\n"
HISTORY = (
    # Berlin's days of 23 and 25 hours: their first and last readings, and those next to them
    """INSERT INTO readings VALUES (1, 1, '2024-03-30 22:59:59Z', 'a|b', 1), (2, 1, '2024-03-30 23:00Z', 'a|b', 2),
         (3, 1, '2024-03-31 21:59:59Z', 'a\\b', 3.50), (4, 1, '2024-03-31 22:00Z', NULL, 4)""",
    """INSERT INTO readings VALUES (5, 2, '2024-10-26 22:00Z', 'a', 5), (6, 2, '2024-10-27 00:30Z', 'a', 6),
         (7, 2, '2024-10-27 01:30Z', 'a', NULL), (8, 2, '2024-10-27 22:59:59Z', 'a', 7),
         (9, 2, '2024-10-27 23:00Z', 'A', 8)""",
    "INSERT INTO readings VALUES (10, 2, 'infinity', 'end', 9), (11, 3, '2024-10-27 23:00Z', 'orphan', 9)",
    "UPDATE readings SET taken_at = taken_at + interval '1 day', kind = 'moved' WHERE id IN (1, 6)",
    "UPDATE readings SET device_id = 2 WHERE device_id = 1",
    "DELETE FROM readings WHERE id = 2",
    "DELETE FROM readings WHERE id = 3",
    "INSERT INTO readings VALUES (3, 2, '2024-03-31 12:00Z', 'a\\b', 3.5)",
    "UPDATE devices SET name = 'roof' WHERE id = 2",
    "UPDATE devices SET live = false WHERE id = 2",
    "UPDATE devices SET live = true WHERE id = 2",
    "UPDATE readings SET kind = NULL WHERE kind = 'a'",
    "UPDATE readings SET kind = 'a' WHERE id > 4",
    "UPDATE readings SET id = id + 100 WHERE id < 8",
    "DELETE FROM devices WHERE id = 2",
    "INSERT INTO devices VALUES (2, 'cellar'), (3, 'porch')",
)


class Groups:
    """One grouped read model over the tables. Each statement is followed by the events of the rows that it changed."""

    def __init__(self, database: Database, folder: Path, declaration: str, expected: str) -> None:
        self.engine = Engine(database, folder, declaration)
        self._expected = expected
        self.lane, self.worker = self.engine.lane(), self.engine.lane(self.engine.work)

    def expected(self) -> dict[str, Any]:
        with self.engine.database.connect() as session:
            session.execute("SET timezone = 'UTC'")
            return dict(session.execute(self._expected.encode()).fetchall())

    def drain(self) -> dict[str, Any]:
        self.engine.drain(self.lane, self.worker)
        return self.engine.documents()

    def without_later_sweeps(self) -> None:
        """Drops the sweeps for the time when no older batch can be under way. None is under way here."""
        records = self.engine.work.records
        later = [record for record in records if record.value and b"not_before_ms" in record.value]
        assert later
        records[:] = [record for record in records if record not in later]

    def events(self, txid: int, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Adds an event for each row that differs. Rows by table and primary key."""
        for place in before.keys() | after.keys():
            old, new = before.get(place), after.get(place)
            if old != new:
                op = "d" if new is None else "c" if old is None else "u"
                self.engine.add_event(txid, place[0], op, before=old, after=new)


def rows(database: Database) -> dict[Any, dict[str, Any]]:
    """Returns all rows as Debezium's images, by table and primary key."""
    found = {}
    with database.connect() as session:
        session.execute("SET timezone = 'UTC'")
        for table in ("devices", "readings"):
            for id, row in session.execute(f"SELECT id, to_jsonb(t) FROM {table} t".encode()).fetchall():
                if row.get("value") is not None:
                    row["value"] = str(row["value"])
                found[table, id] = row
    return found


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Iterator[Callable[[str, str], Groups]]:
    database.execute(*TABLES)
    made: list[Groups] = []

    def build(declaration: str, expected: str) -> Groups:
        made.append(Groups(database, tmp_path / str(len(made)), declaration, expected))
        return made[-1]

    yield build
    for groups in made:
        groups.engine.close()


def test_two_groupings_of_one_table_equal_sql_after_each_change(
    database: Database, make: Callable[[str, str], Groups]
) -> None:
    both = [make(DAYS, EXPECTED_DAYS), make(KINDS, EXPECTED_KINDS)]
    sizes = set()
    for statement in HISTORY:
        before = rows(database)
        txid = both[0].engine.execute(statement)
        for groups in both:
            groups.events(txid, before, rows(database))
            documents = groups.drain()
            assert documents == groups.expected(), statement
            sizes.add(len(documents))
    assert len(sizes) > 4, "the history creates and deletes groups"
    assert "2|infinity" in both[0].engine.documents() and "a\\b" in both[1].engine.documents()

    for groups in both:  # a backfill renders the same
        ranges = plan_durably(groups.engine.rows(), lambda view: range_items(view, 2, "test"), Waiter())
        assert len(ranges) > 1
        groups.engine.store.documents.clear()
        for item in ranges:
            groups.engine.work.put(item)
        assert groups.drain() == groups.expected()


def test_a_truncate_deletes_all_groups_and_a_truncated_joined_table_those_that_it_filters(
    database: Database, make: Callable[[str, str], Groups]
) -> None:
    groups = make(DAYS, EXPECTED_DAYS)
    txid = groups.engine.execute(*HISTORY[:3])
    groups.events(txid, {}, rows(database))
    assert len(groups.drain()) > 4
    txid = groups.engine.execute("TRUNCATE devices")
    groups.engine.add_event(txid, "devices", "t")
    assert groups.drain() == {} == groups.expected()
    txid = groups.engine.execute("INSERT INTO devices VALUES (1, 'kitchen')")
    groups.engine.add_event(txid, "devices", "c", after={"id": 1, "name": "kitchen", "live": True})
    assert groups.drain() == groups.expected() != {}
    txid = groups.engine.execute("TRUNCATE readings")
    groups.engine.add_event(txid, "readings", "t")
    groups.engine.drain(groups.lane)
    groups.without_later_sweeps()
    assert groups.drain() == {}


def test_an_update_without_its_old_row_leaves_no_group_behind(
    database: Database, make: Callable[[str, str], Groups]
) -> None:
    """PostgreSQL logs such updates under a weaker replica identity. The row was the last one of the group it left."""
    groups = make(KINDS, EXPECTED_KINDS)
    txid = groups.engine.execute(HISTORY[0])
    groups.events(txid, {}, rows(database))
    assert groups.drain() == groups.expected()
    txid = groups.engine.execute("UPDATE readings SET kind = 'only' WHERE id = 3")
    groups.engine.add_event(txid, "readings", "u", after=rows(database)["readings", 3])
    groups.engine.drain(groups.lane)
    groups.without_later_sweeps()
    assert groups.drain() == groups.expected()
    assert "a\\b" not in groups.engine.documents()


def test_a_rule_that_marks_only_the_new_group_leaves_the_old_one_stale(
    database: Database, make: Callable[[str, str], Groups], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weaker rule uses the after image alone. It must be detected, or the other tests prove nothing."""
    resolve = Resolve.__call__

    def only_new(self: Resolve, change: ChangeEvent, uses: list[TableUse], dirty: Dirty) -> None:
        new = change if change.after is None else change._replace(before=None)
        resolve(self, new, uses, dirty)

    monkeypatch.setattr(Resolve, "__call__", only_new)
    wrong = []
    groups = make(DAYS, EXPECTED_DAYS)
    for statement in HISTORY:
        before = rows(database)
        txid = groups.engine.execute(statement)
        groups.events(txid, before, rows(database))
        if groups.drain() != groups.expected():
            wrong.append(statement)
    assert HISTORY[3] in wrong, "rows that moved to another day are still in the old one"


def test_bad_group_expressions_are_refused_with_their_line(
    make: Callable[[str, str], Groups], database: Database
) -> None:
    groups = make(KINDS, EXPECTED_KINDS)
    path = groups.engine.folder / "models" / "model.yaml"

    def load(group: str) -> Compiled:
        path.write_text(f"name: m\nroot:\n  table: readings\n  group:\n    g: {group}\n{REST}")
        config = groups.engine.config
        return loader.load_checked(config, loader.load_declared(config)[0]).compiled

    def refused(group: str) -> str:
        with pytest.raises(Fatal) as error:
            load(group)
        return str(error.value)

    assert "model.yaml:5: `value` has the type numeric" in refused("value")
    assert "no index serves the groups (device_id % 10)" in refused("device_id % 10")
    database.execute("CREATE INDEX ON readings ((device_id % 10))")
    assert load("device_id % 10").key == ("g",)
    database.execute(HISTORY[0], "ANALYZE readings")  # a small table needs no index
    assert "model.yaml:5: PostgreSQL rejects md5(device_id)" in refused("md5(device_id)")


# -- on all real servers --------------------------------------------------------------------------------------

HOURS = """
name: {prefix}-hours
root:
  table: {schema}.readings
  group: {{device_id: device_id, hour: "date_trunc('hour', taken_at, 'UTC')"}}
relations: {{customer: {{one: {schema}.customers, on: {{id: device_id}}}}}}
document:
  owner: customer.name
  readings: count(*)
  high: max(value)
sink: {{redis: {{key: "{prefix}:hour:{{id}}"}}}}
"""
EXPECTED_HOURS = """
SELECT device_id || '|' || (date_trunc('hour', taken_at, 'UTC') AT TIME ZONE 'UTC')::text || '+00',
       json_build_object('owner', min(c.name), 'readings', count(*), 'high', max(value))
  FROM {schema}.readings r LEFT JOIN {schema}.customers c ON c.id = r.device_id
 GROUP BY device_id, date_trunc('hour', taken_at, 'UTC')"""


def test_groups_on_all_servers(system: System) -> None:
    """Check, backfill, changes, trace, verify, refresh and a truncate."""
    model = f"{system.prefix}-hours"
    system.execute(
        """CREATE TABLE {schema}.readings (
             id bigint PRIMARY KEY, device_id bigint NOT NULL, taken_at timestamptz NOT NULL, value int NOT NULL)""",
        "ALTER TABLE {schema}.readings REPLICA IDENTITY FULL",
        """INSERT INTO {schema}.readings
           SELECT n, n % 3, '2024-03-31Z'::timestamptz + n * interval '7 minutes', n % 11
             FROM generate_series(1, 2000) n""",
        "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')",
        "ANALYZE {schema}.readings",
    )
    system.declare("hours", HOURS.replace("date_trunc('hour', taken_at, 'UTC')", "to_char(taken_at, 'HH24')"))
    output = " ".join(system.run("check", model, expect=1).split())
    assert "is not immutable, because of TO_CHAR(taken_at, 'HH24')" in output and "no index serves" not in output
    system.declare("hours", HOURS)
    output = " ".join(system.run("check", model, expect=1).split())
    statement = f"CREATE INDEX CONCURRENTLY ON {system.schema}.readings (device_id, taken_at);"
    assert "no index serves the groups" in output and statement in output
    system.database.execute(statement.removesuffix(";"))
    system.run("check", model)
    assert "one document per group of rows" in system.run("explain", model)

    def documents() -> dict[str, Any]:
        with redis.Redis.from_url(system.redis) as client:
            keys = [key.decode() for key in client.scan_iter(f"{system.prefix}:hour:*", count=1000)]
            values: Any = client.mget(keys) if keys else []
        prefix = f"{system.prefix}:hour:"
        return {key.removeprefix(prefix): json.loads(v) for key, v in zip(keys, values, strict=True) if v}

    def expected() -> dict[str, Any]:
        return dict(system.database.query(EXPECTED_HOURS.format(schema=system.schema)))

    def in_sync() -> bool:
        return documents() == expected()

    system.run("backfill", model)
    assert documents() == expected() and len(documents()) > 600
    daemon = system.start(model)
    id = "1|2024-03-31 00:00:00+00"
    system.execute(
        "UPDATE {schema}.readings SET taken_at = taken_at + interval '1 hour', value = 99 WHERE id IN (1, 4, 7)",
        "UPDATE {schema}.customers SET name = 'Ada L.' WHERE id = 1",
        "DELETE FROM {schema}.readings WHERE device_id = 2 AND id % 2 = 0",
        "UPDATE {schema}.readings SET device_id = 5 WHERE id > 1990",
    )
    until(in_sync, lambda: f"{len(documents())} documents, expected {len(expected())}")
    assert id not in documents(), "all three readings of the hour were moved"
    system.run("verify", model)
    report = json.loads(system.run("trace", model, id, "--json"))
    assert report["in_sync"] and report["postgres"]["document"] is None
    moved = [change for change in report["changes"] if change["operation"] == "UPDATE"]
    assert {change["key"] for change in moved if change["table"].endswith("readings")} == {"1", "4", "7"}
    assert all(way["images"] == ["before"] for change in moved for way in change["through"] if way["path"] == "")
    later = json.loads(system.run("trace", model, "1|2024-03-31T01:00Z", "--json"))
    assert later["key"] == "1|2024-03-31 01:00:00+00" and {"1", "4", "7"} <= set(later["postgres"]["rows"][""])
    assert '"readings"' in system.run("preview", model, "1|2024-03-31 01:00:00+00")
    assert "has no rows in the group" in system.run("preview", model, id, expect=1)
    rows = [{"device_id": 1, "taken_at": "2024-03-31 02:05:00+00"}, {"id": 10}]  # two hours of device 1
    status, answer = daemon.refresh(model, table="readings", rows=rows)
    assert status == 200 and answer["refreshed"] == 2, answer
    system.execute("TRUNCATE {schema}.readings")
    until(lambda: documents() == {}, lambda: f"{len(documents())} documents are left")
