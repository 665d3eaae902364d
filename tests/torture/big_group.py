"""Groups of very many rows, in read models with partials and in one with a grouped root.

Meter 1 has almost all samples: a million in a full round. `samples.py` writes. At the end, every document is compared
with plain SQL. Two read models divide the same samples, one by a number and one by time. Both show every aggregate that
partials combine, and a list. Each has one of the sinks that store partials, which the seed chooses: all of them at once
would keep a machine with two cores busier than `pipeline.max_age` of the tests allows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from decimal import Decimal

from tests.convergence.compare import Expected
from tests.convergence.deployment import Deployment
from tests.harness import Database

METERS, HOURS = 5, 4000
_SHARE = 50
"""One of this many samples belongs to another meter than meter 1."""
_BUCKETS, _SMALLEST = 200, 50
"""Buckets of ids at the beginning, and the smallest number of ids of one: smaller groups have fewer buckets."""
_TABLES = """
CREATE TABLE meters (id integer PRIMARY KEY, name text NOT NULL, hidden boolean NOT NULL DEFAULT false);
CREATE TABLE samples (id bigint PRIMARY KEY, meter_id integer NOT NULL, at timestamptz NOT NULL, value numeric);
ALTER TABLE samples REPLICA IDENTITY FULL;
ALTER TABLE meters REPLICA IDENTITY FULL
"""
_INDEXES = "CREATE INDEX ON samples (meter_id, id); CREATE INDEX ON samples (meter_id, at)"
_PARTIALS = """
name: PREFIX-NAME
root: {table: public.meters}
where: not hidden
document:
  name: name
  highest:
    many: public.samples
    on: {meter_id: id}
    where: value is distinct from -7
    order_by: [value desc nulls last, at desc]
    limit: 5
    partials: {by: BY, size: SIZE}
    document: {id: id, at: at, value: value}
  samples: count(highest)
  measured: count(highest.value)
  different: count(distinct highest.BY)
  total: sum(highest.value)
  large: sum(highest.value) filter (where highest.value > 100)
  mean: avg(highest.value)
  low: min(highest.value)
  high: max(highest.value)
  oldest: min(highest.at)
  newest: max(highest.at)
  extreme: bool_or(highest.value > 999990)
  positive: bool_and(highest.value > -2)
  earliest: first(highest.value order by highest.at)
  latest: last(highest.id order by highest.at, highest.value)
sink: SINK
"""
_SINKS = {
    "redis": '{redis: {key: "PREFIX:NAME:{id}", format: json}}',
    "elasticsearch": "{elasticsearch: {index: PREFIX-NAME, settings: {number_of_shards: 2, number_of_replicas: 0}}}",
    "postgres": "{postgres: {table: read.NAME}}",
}
_HOURS = """
name: PREFIX-hours
root: {table: public.samples, group: {meter_id: meter_id, hour: "date_trunc('hour', at, 'UTC')"}}
relations:
  meter: {one: public.meters, on: {id: meter_id}}
document:
  meter: meter.name
  hour: hour
  samples: count(*)
  total: sum(value)
sink: {redis: {key: "PREFIX:hours:{id}", format: json}}
"""
_EXPECTED = """
WITH shown AS (SELECT * FROM samples WHERE value IS DISTINCT FROM -7)
SELECT m.id::text, (to_jsonb(s) || jsonb_build_object('name', m.name, 'highest', highest, 'earliest', earliest,
         'latest', latest))::text
  FROM meters m
  CROSS JOIN LATERAL (
    SELECT count(*) AS samples, count(value) AS measured, count(DISTINCT BY) AS different, sum(value) AS total,
           sum(value) FILTER (WHERE value > 100) AS large, avg(value) AS mean, min(value) AS low, max(value) AS high,
           min(at) AS oldest, max(at) AS newest, bool_or(value > 999990) AS extreme, bool_and(value > -2) AS positive
      FROM shown WHERE meter_id = m.id) s
  CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'at', at, 'value', value)
                              ORDER BY value DESC NULLS LAST, at DESC, id), '[]') AS highest
      FROM (SELECT * FROM shown WHERE meter_id = m.id ORDER BY value DESC NULLS LAST, at DESC, id LIMIT 5) h) h
  LEFT JOIN LATERAL (
    SELECT value AS earliest FROM shown WHERE meter_id = m.id ORDER BY at, value DESC NULLS LAST, id LIMIT 1) e ON true
  LEFT JOIN LATERAL (
    SELECT id AS latest FROM shown WHERE meter_id = m.id ORDER BY at DESC, value DESC, id DESC LIMIT 1) l ON true
 WHERE NOT m.hidden"""
_EXPECTED_HOURS = """
SELECT s.meter_id || '|' || s.hour, json_build_object('meter', m.name, 'hour', s.hour, 'samples', s.samples,
         'total', s.total)::text
  FROM (SELECT meter_id, date_trunc('hour', at, 'UTC') AS hour, count(*) AS samples, sum(value) AS total
          FROM samples GROUP BY 1, 2) s LEFT JOIN meters m ON m.id = s.meter_id"""
_DIVIDED = {"meters": "id", "days": "at"}
"""The read models with partials, and the column of their buckets."""


def declare(deployment: Deployment, rows: int, seed: str) -> dict[str, str]:
    """Creates the tables with this number of samples, and declares the read models. Returns the sink of each."""
    with deployment.database.connect() as session:
        session.execute(_TABLES.encode())
        session.execute(f"INSERT INTO meters SELECT m, 'meter ' || m FROM generate_series(1, {METERS}) m".encode())
        session.execute(insert_samples(1, rows).encode())
        session.execute(_INDEXES.encode())
        session.execute(b"ANALYZE samples")
    sizes = {"id": str(max(_SMALLEST, rows // _BUCKETS)), "at": "1d"}
    sinks = dict(zip(_DIVIDED, random.Random(f"{seed}/sinks").sample(sorted(_SINKS), len(_DIVIDED)), strict=True))
    for name, by in _DIVIDED.items():
        text = _PARTIALS.replace("BY", by).replace("SIZE", sizes[by]).replace("SINK", _SINKS[sinks[name]])
        deployment.declare(name, text.replace("NAME", name))
    deployment.declare("hours", _HOURS)
    return sinks | {"hours": "redis"}


def insert_samples(first: int, last: int) -> str:
    """Returns a statement that inserts samples with these ids."""
    meter = f"CASE WHEN n % {_SHARE} = 0 THEN 2 + n / {_SHARE} % {METERS - 1} ELSE 1 END"
    at = f"timestamptz '2026-01-01 00:00Z' + interval '1 hour' * (n % {HOURS})"
    return f"INSERT INTO samples SELECT n, {meter}, {at}, n % 1000 / 8.0 FROM generate_series({first}, {last}) n"


def expected(database: Database, sinks: Mapping[str, str]) -> tuple[Expected, int]:
    """Returns the documents of all read models, computed by SQL, and the number of samples of meter 1.

    sinks: the sink of each read model.
    """
    found: Expected = {}
    with database.connect(autocommit=False) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        session.execute("SET LOCAL TimeZone = 'UTC'")
        for model, sink in sinks.items():
            by = _DIVIDED.get(model)
            statement = _EXPECTED.replace("BY)", f"{by})") if by else _EXPECTED_HOURS
            rows = session.execute(statement.encode()).fetchall()
            found[model, sink] = {id: json.loads(text, parse_float=Decimal) for id, text in rows}
        [(largest,)] = session.execute("SELECT count(*) FROM samples WHERE meter_id = 1").fetchall()
    return found, largest
