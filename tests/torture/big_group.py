"""A group of very many rows, in a read model with partials and in one with a grouped root.

Meter 1 has almost all samples: a million in a full round. A thread changes single samples, moves them to other buckets,
meters and hours, and lets other meters come and go. At the end, every document is compared with plain SQL.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg

from tests.convergence.compare import Expected
from tests.convergence.deployment import Deployment
from tests.harness import Database

_METERS, _HOURS = 5, 4000
_SHARE = 50
"""One of this many samples belongs to another meter than meter 1."""
_PAUSE = 0.05  # seconds between two transactions
_TABLES = """
CREATE TABLE meters (id integer PRIMARY KEY, name text NOT NULL, hidden boolean NOT NULL DEFAULT false);
CREATE TABLE samples (id bigint PRIMARY KEY, meter_id integer NOT NULL, at timestamptz NOT NULL, value numeric);
ALTER TABLE samples REPLICA IDENTITY FULL;
ALTER TABLE meters REPLICA IDENTITY FULL
"""
_INDEXES = "CREATE INDEX ON samples (meter_id, id); CREATE INDEX ON samples (meter_id, at)"
_READ_MODELS = {
    "meters": """
name: PREFIX-meters
root: {table: public.meters}
where: not hidden
relations:
  samples: {many: public.samples, on: {meter_id: id}, partials: {by: id, size: 5000}}
document:
  name: name
  samples: count(samples)
  total: sum(samples.value)
  mean: avg(samples.value)
  low: min(samples.value)
  newest: max(samples.at)
sink: {redis: {key: "PREFIX:meter:{id}", format: json}}
""",
    "hours": """
name: PREFIX-hours
root: {table: public.samples, group: {meter_id: meter_id, hour: "date_trunc('hour', at, 'UTC')"}}
relations:
  meter: {one: public.meters, on: {id: meter_id}}
document:
  meter: meter.name
  hour: hour
  samples: count(*)
  total: sum(value)
sink: {redis: {key: "PREFIX:hour:{id}", format: json}}
""",
}
_EXPECTED = {
    "meters": """
SELECT m.id::text, json_build_object('name', m.name, 'samples', count(s.id), 'total', sum(s.value),
         'mean', avg(s.value), 'low', min(s.value), 'newest', max(s.at))::text
  FROM meters m LEFT JOIN samples s ON s.meter_id = m.id WHERE NOT m.hidden GROUP BY m.id""",
    "hours": """
SELECT s.meter_id || '|' || s.hour, json_build_object('meter', m.name, 'hour', s.hour, 'samples', s.samples,
         'total', s.total)::text
  FROM (SELECT meter_id, date_trunc('hour', at, 'UTC') AS hour, count(*) AS samples, sum(value) AS total
          FROM samples GROUP BY 1, 2) s LEFT JOIN meters m ON m.id = s.meter_id""",
}


def declare(deployment: Deployment, rows: int) -> None:
    """Creates the tables with this number of samples, and declares both read models."""
    with deployment.database.connect() as session:
        session.execute(_TABLES.encode())
        session.execute(f"INSERT INTO meters SELECT m, 'meter ' || m FROM generate_series(1, {_METERS}) m".encode())
        meter = f"CASE WHEN n % {_SHARE} = 0 THEN 2 + n / {_SHARE} % {_METERS - 1} ELSE 1 END"
        at = f"timestamptz '2026-01-01 00:00Z' + interval '1 hour' * (n % {_HOURS})"
        values = f"n, {meter}, {at}, n % 1000 / 8.0"
        session.execute(f"INSERT INTO samples SELECT {values} FROM generate_series(1, {rows}) n".encode())
        session.execute(_INDEXES.encode())
        session.execute(b"ANALYZE samples")
    for name, text in _READ_MODELS.items():
        deployment.declare(name, text)


def expected(database: Database) -> tuple[Expected, int]:
    """Returns the documents of both read models, computed by SQL, and the number of samples of meter 1."""
    found: Expected = {}
    with database.connect(autocommit=False) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        session.execute("SET LOCAL TimeZone = 'UTC'")
        for model, statement in _EXPECTED.items():
            rows = session.execute(statement.encode()).fetchall()
            found[model, "redis"] = {id: json.loads(text, parse_float=Decimal) for id, text in rows}
        [(largest,)] = session.execute("SELECT count(*) FROM samples WHERE meter_id = 1").fetchall()
    return found, largest


class SampleWriter:
    """Writes on a thread. rows: the number of samples at the beginning."""

    def __init__(self, database: Database, seed: str, rows: int) -> None:
        self.random = random.Random(f"{seed}/samples")
        self.transactions = 0
        self._database, self._last, self._far = database, rows, 2 * rows + 10**6
        self._connection: psycopg.Connection[Any] | None = None
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="sample-writer", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Writes during the block. Raises the first error of the thread."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()
            if self._connection is not None:
                self._connection.close()
        if self._failed:
            raise self._failed[0]

    def _run(self) -> None:
        try:
            while not self._stop.wait(_PAUSE):
                with contextlib.suppress(psycopg.OperationalError, psycopg.errors.IntegrityError):
                    self._transact()
        except BaseException as error:
            self._failed.append(error)

    def _transact(self) -> None:
        """Runs one to three statements. Rolls back some transactions."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(autocommit=False)
        connection = self._connection
        try:
            for _ in range(self.random.randint(1, 3)):
                connection.execute(self._statement().encode())
            connection.rollback() if self.random.random() < 0.1 else connection.commit()
            self.transactions += 1
        except psycopg.OperationalError:
            connection.close()
            raise
        except psycopg.errors.IntegrityError:
            connection.rollback()
            raise

    def _statement(self) -> str:
        choose = self.random
        id, meter = choose.randint(1, self._last), choose.randint(1, _METERS)
        at = f"timestamptz '2026-01-01 00:00Z' + interval '1 hour' * {choose.randrange(_HOURS + 5)}"
        value = choose.choice(("NULL", "0.125", "-7", f"{choose.randrange(10**6)}.25"))
        match choose.randrange(12):
            case 0 | 1 | 2:
                self._last += 1
                return f"INSERT INTO samples VALUES ({self._last}, {choose.choice((1, 1, meter))}, {at}, {value})"
            case 3 | 4:
                return f"UPDATE samples SET value = {value} WHERE id BETWEEN {id} AND {id + choose.choice((0, 0, 40))}"
            case 5:
                return f"UPDATE samples SET meter_id = {meter} WHERE id = {id}"
            case 6:
                return f"UPDATE samples SET at = {at} WHERE id = {id}"
            case 7:
                self._far += 10_000  # each in a bucket of its own
                return f"UPDATE samples SET id = {self._far} WHERE id = {id}"
            case 8:
                return f"DELETE FROM samples WHERE id BETWEEN {id} AND {id + choose.randrange(5)}"
            case 9:
                return f"DELETE FROM meters WHERE id = {choose.randint(2, _METERS)}"
            case 10:
                return f"INSERT INTO meters VALUES ({meter}, 'again') ON CONFLICT (id) DO UPDATE SET name = 'renamed'"
            case _:
                return f"UPDATE meters SET hidden = NOT hidden WHERE id = {meter}"
