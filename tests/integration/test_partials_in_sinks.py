"""Combined partials, the whole way from PostgreSQL through Debezium to each sink that stores them.

Documents always become equal to those that one statement renders: after a backfill, changes of rows, moves between
buckets and roots, deleted and returning roots, TRUNCATE, edits by hand, and a resync.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
import urllib3

from tests.harness.postgres_servers import reads_database
from tests.harness.system import System
from tests.harness.waiting import until

MODEL = """
name: {prefix}-devices
root: {{table: {schema}.devices}}
document:
  name: name
  readings: count(highest)
  total: sum(highest.value)
  mean: avg(highest.value)
  times: TIMES
  highest:
    many: {schema}.readings
    on: {{device_id: id}}
    order_by: value desc
    limit: 3
    partials: {{DIVISION}}
    value: value
sink: {{SINK}}
"""
SCHEMA = (
    "CREATE TABLE {schema}.devices (id bigint PRIMARY KEY, name text NOT NULL)",
    """CREATE TABLE {schema}.readings (id bigint PRIMARY KEY, device_id bigint NOT NULL, value numeric NOT NULL,
           at timestamptz NOT NULL DEFAULT '1969-12-31 23:59:59.999999', local_at timestamp NOT NULL DEFAULT 'infinity',
           day date NOT NULL DEFAULT '0044-03-15 BC')""",
    *(f"CREATE INDEX ON {{schema}}.readings (device_id, {by})" for by in ("id", "at", "local_at", "day")),
    "ALTER TABLE {schema}.readings REPLICA IDENTITY FULL",
    "INSERT INTO {schema}.devices SELECT n, 'device ' || n FROM generate_series(1, 3) n",
    """INSERT INTO {schema}.readings SELECT n, 1 + n % 2, n / 10.0, t, t, t
         FROM generate_series(1, 2000) n, LATERAL (VALUES (timestamp '1969-12-01' + n * interval '47 min')) v (t)""",
)
GROUPS = """
name: {prefix}-devices
root:
  table: {schema}.readings
  group: {{device_id: device_id, hour: "date_trunc('hour', at, 'UTC')"}}
  partials: {{DIVISION}}
where: value >= 0
relations: {{device: {{one: {schema}.devices, on: {{id: device_id}}}}}}
document:
  name: device.name
  readings: count(*)
  total: sum(value)
  mean: avg(value)
sink: {{SINK}}
"""
Documents = dict[str, Any]


class InRedis:
    block = '{{redis: {{key: "{prefix}:device:{{id}}"}}}}'

    def __init__(self, system: System) -> None:
        self.system = system

    def documents(self) -> Documents:
        with redis.Redis.from_url(self.system.redis) as client:
            keys: Any = list(client.scan_iter(f"{self.system.prefix}:device:*"))
            values: Any = client.mget(keys) if keys else []
        before = len(f"{self.system.prefix}:device:")
        found = {key.decode()[before:]: value for key, value in zip(keys, values, strict=True)}
        return {id: json.loads(value) for id, value in found.items() if value is not None}

    def edit(self) -> None:
        with redis.Redis.from_url(self.system.redis) as client:
            client.set(f"{self.system.prefix}:device:1", '{"name": "edited"}')

    def obsolete(self) -> list[str]:
        """Returns what a resync leaves behind, for the operator to drop."""
        return []


class InPostgres:
    block = "{{postgres: {{table: read.devices}}}}"

    def __init__(self, system: System, dsn: str) -> None:
        self.dsn = dsn
        self.columns: tuple[str, ...] = ("name", "readings", "total", "mean", "times", "highest")
        system.environment["SYNCER_POSTGRES_SINK__DSN"] = dsn

    def execute(self, statement: str) -> psycopg.Cursor[Any]:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return session.execute(statement.encode())

    def documents(self) -> Documents:
        pairs = ", ".join(f"'{name}', {name}" for name in self.columns)
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return dict(
                session.execute(f"SELECT _id, json_build_object({pairs}) FROM read.devices".encode()).fetchall()
            )

    def edit(self) -> None:
        self.execute("UPDATE read.devices_000001 SET readings = -1 WHERE _id = '1'")

    def obsolete(self) -> list[str]:
        return ["read.devices_000001", "read.devices_000001_partials"]


class InElasticsearch:
    block = "{{elasticsearch: {{index: {prefix}-devices, settings: {{number_of_replicas: 0}}}}}}"

    def __init__(self, system: System) -> None:
        self.system, self.alias = system, f"{system.prefix}-devices"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = urllib3.request(method, self.system.stack.elasticsearch + path, json=body)
        assert answer.status == 200, answer.data
        return answer.json()

    def documents(self) -> Documents:
        self.call("POST", f"/{self.alias}/_refresh")
        hits = self.call("GET", f"/{self.alias}/_search?size=100")["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def edit(self) -> None:
        """Edits the document often. Each edit increases its version by one."""
        for number in range(100):
            self.call("POST", f"/{self.alias}/_update/1", {"doc": {"name": f"edited {number}"}})

    def obsolete(self) -> list[str]:
        return [f"{self.alias}-000001", f"{self.alias}-000001-partials"]


Place = InRedis | InPostgres | InElasticsearch


@pytest.fixture
def place(request: pytest.FixtureRequest, system: System) -> Iterator[Place]:
    if request.param == "redis":
        yield InRedis(system)
    elif request.param == "elasticsearch":
        yield InElasticsearch(system)
    else:
        with reads_database(system.stack.postgres) as dsn:
            yield InPostgres(system, dsn)


def expected(system: System, by: str) -> Documents:
    rows = system.database.query(
        f"""SELECT d.id::text, json_build_object('name', d.name, 'readings', count(r.id), 'total', sum(r.value),
                   'mean', avg(r.value), 'times', count(DISTINCT r.{by}), 'highest', to_json(coalesce(
                       (array_agg(r.value ORDER BY r.value DESC, r.id) FILTER (WHERE r.id IS NOT NULL))[:3], '{{}}')))
              FROM {system.schema}.devices d
              LEFT JOIN {system.schema}.readings r ON r.device_id = d.id GROUP BY d.id"""
    )
    return dict(rows)


@pytest.mark.parametrize(
    ("place", "by", "size"),
    [
        ("redis", "at", "1d"),
        ("elasticsearch", "day", "2d"),
        ("postgres", "local_at", "90m"),
        ("postgres", "id", "100"),
    ],
    indirect=["place"],
)
def test_documents_in_each_sink(system: System, place: Place, by: str, size: str) -> None:
    model = declared(system, MODEL.replace("TIMES", f"count(distinct highest.{by})"), place, f"by: {by}, size: {size}")
    assert re.search(r": done, [1-9][\d,]* partials in [\d.]+ s\n", system.run("backfill", model))

    def until_equal() -> None:
        until(
            lambda: place.documents() == expected(system, by),
            lambda: f"{place.documents()}\n{expected(system, by)}",
        )

    until_equal()
    system.start(model)
    system.start(model)
    system.execute(
        "INSERT INTO {schema}.readings VALUES (5000, 3, 1.25), (5001, 1, 2)",
        "UPDATE {schema}.readings SET device_id = 3 WHERE id % 50 = 0",
        "UPDATE {schema}.readings SET id = id + 10000 WHERE id < 150",
        "UPDATE {schema}.readings SET at = '-infinity', local_at = '0044-03-15 BC' WHERE id % 77 = 1",
        "UPDATE {schema}.readings SET day = '12024-01-01' WHERE id % 50 = 1",
        "UPDATE {schema}.readings SET at = at + '90 d', local_at = local_at + '90 d', day = day + 90 WHERE id % 9 = 0",
        "DELETE FROM {schema}.readings WHERE id BETWEEN 300 AND 700",
        "DELETE FROM {schema}.devices WHERE id = 2",
        "UPDATE {schema}.devices SET name = 'renamed' WHERE id = 1",
    )
    until_equal()
    system.execute("INSERT INTO {schema}.devices VALUES (2, 'again'), (4, 'new')")
    until_equal()
    for _ in range(2):  # after the first repair, all partials have the same clock
        place.edit()
        assert place.documents() != expected(system, by)
        system.run("verify", "--repair", "--patience", "3", model)
        until_equal()
    system.run("verify", model)
    output = system.run("resync", "--yes", model)
    assert re.search(r": rebuilt, [1-9][\d,]* partials in ", output)
    assert [name for name in place.obsolete() if name not in output] == []
    until_equal()
    system.execute(
        "INSERT INTO {schema}.readings VALUES (20000, 2, 5), (20001, 4, 6)",
        "DELETE FROM {schema}.readings WHERE id BETWEEN 800 AND 950",
    )
    until_equal()
    system.run("verify", model)
    system.execute("TRUNCATE {schema}.readings")
    until_equal()
    assert place.documents()["1"] == {
        "name": "renamed",
        "readings": 0,
        "total": None,
        "mean": None,
        "times": 0,
        "highest": [],
    }
    system.execute("INSERT INTO {schema}.readings VALUES (1, 1, 2.5)", "TRUNCATE {schema}.devices")
    until_equal()
    assert place.documents() == {}


def declared(system: System, text: str, place: Place, division: str) -> str:
    """Creates the tables, and declares this read model alone. Returns its name."""
    for path in (system.folder / "models").iterdir():
        path.unlink()
    system.execute(*SCHEMA)
    system.declare("devices", text.replace("{{SINK}}", place.block).replace("DIVISION", division))
    return f"{system.prefix}-devices"


def expected_hours(system: System) -> Documents:
    rows = system.database.query(
        f"""SELECT r.device_id || to_char(date_trunc('hour', r.at AT TIME ZONE 'UTC'), '|YYYY-MM-DD HH24:MI:SS+00'),
                   json_build_object(
                   'name', max(d.name), 'readings', count(*), 'total', sum(r.value), 'mean', avg(r.value))
              FROM {system.schema}.readings r LEFT JOIN {system.schema}.devices d ON d.id = r.device_id
             WHERE r.value >= 0 GROUP BY r.device_id, date_trunc('hour', r.at AT TIME ZONE 'UTC')"""
    )
    return dict(rows)


@pytest.mark.parametrize(
    ("place", "division"),
    [
        ("redis", "by: at, size: 30m"),
        ("elasticsearch", "by: id, size: 7"),
        ("postgres", "by: at, size: 25h"),
    ],
    indirect=["place"],
)
def test_groups_in_each_sink(system: System, place: Place, division: str) -> None:
    """Hours of devices appear, move, vanish and return. `system.start` runs two daemons."""
    if isinstance(place, InPostgres):
        place.columns = ("name", "readings", "total", "mean")
    model = declared(system, GROUPS, place, division)
    system.execute(
        "UPDATE {schema}.readings SET at = '2026-05-01 12:00Z'::timestamptz + id % 400 * interval '1 min'",
    )
    system.run("backfill", model)

    def until_equal() -> None:
        until(lambda: place.documents() == expected_hours(system), lambda: f"{place.documents()}")

    until_equal()
    assert len(place.documents()) > 10
    for _ in range(2):
        system.start(model)
    system.execute(
        "INSERT INTO {schema}.readings VALUES (5000, 3, 1.25, '2026-05-01 12:30Z')",
        "UPDATE {schema}.readings SET device_id = 3 WHERE id % 50 = 0",
        "UPDATE {schema}.readings SET at = at + interval '3 h' WHERE id % 7 = 0",
        "UPDATE {schema}.readings SET value = -1 WHERE id % 11 = 0",
        "DELETE FROM {schema}.readings WHERE at < '2026-05-01 13:00Z'",
        "UPDATE {schema}.devices SET name = 'renamed' WHERE id = 1",
    )
    until_equal()
    system.execute(
        "INSERT INTO {schema}.readings SELECT n, 1, 2, '2026-05-01 12:00Z'::timestamptz + n % 60 * interval '1 min'"
        " FROM generate_series(6000, 6100) n",
        "UPDATE {schema}.readings SET value = 1 WHERE id % 11 = 0",
        "DELETE FROM {schema}.devices WHERE id = 2",
    )
    until_equal()
    system.run("verify", model)
    system.run("resync", "--yes", model)
    system.execute("DELETE FROM {schema}.readings WHERE id % 3 = 0")
    until_equal()
    system.run("verify", model)
    system.execute("TRUNCATE {schema}.readings")
    until_equal()
    assert place.documents() == {}
