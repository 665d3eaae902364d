"""Writes to the tables of `big_group.py` on a thread.

The thread changes single samples, moves them to other buckets, meters and hours, and empties and refills buckets. It
deletes, hides, renames and inserts meters. The round has it truncate tables.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any

import psycopg

from tests.harness import Database
from tests.harness.waiting import until
from tests.torture.big_group import HOURS, METERS, insert_samples

_PAUSE = 0.2  # seconds between two transactions
_FEW = 10_000
"""Groups up to this number of rows are truncated, too. To fill a larger one again would take most of a round."""


class SampleWriter:
    """Writes on a thread. rows: the number of samples at the beginning."""

    def __init__(self, database: Database, seed: str, rows: int) -> None:
        self.random = random.Random(f"{seed}/samples")
        self.transactions = 0
        self._database, self._rows, self._last, self._far = database, rows, rows, 2 * rows + 10**6
        self._next: list[str] = []
        """The transactions that have to be committed before any other."""
        self._connection: psycopg.Connection[Any] | None = None
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="sample-writer", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Writes during the block, and shows all meters at its end. Raises the first error of the thread."""
        self._thread.start()
        try:
            yield
            self._next.append("UPDATE meters SET hidden = false WHERE hidden")
            until(lambda: not self._next or self._failed)
        finally:
            self._stop.set()
            self._thread.join()
            if self._connection is not None:
                self._connection.close()
        if self._failed:
            raise self._failed[0]

    def truncate(self) -> None:
        """Truncates both tables with the next transactions, and fills them again."""
        self._next += (
            "TRUNCATE meters",
            f"INSERT INTO meters SELECT m, 'new ' || m FROM generate_series(1, {METERS}) m ON CONFLICT DO NOTHING",
        )
        if self._rows <= _FEW:
            self._next.append(f"TRUNCATE samples; {insert_samples(1, self._rows)}")

    def _run(self) -> None:
        try:
            while not self._stop.wait(_PAUSE):
                with contextlib.suppress(psycopg.OperationalError, psycopg.errors.IntegrityError):
                    self._transact()
        except BaseException as error:
            self._failed.append(error)

    def _transact(self) -> None:
        """Runs the next transaction, or one of one to three random statements. Rolls back some of these."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(autocommit=False)
        connection = self._connection
        try:
            if self._next:
                connection.execute(self._next[0].encode())
                connection.commit()
                del self._next[0]
            else:
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
        id, meter = choose.randint(1, self._last), choose.randint(1, METERS)
        at = f"timestamptz '2026-01-01 00:00Z' + interval '1 hour' * {choose.randrange(HOURS + 5)}"
        few = -choose.randint(1, 2)  # alone in their buckets, so that these become empty
        value = choose.choice(("NULL", "0.125", "-7", f"{choose.randrange(10**6)}.25"))
        match choose.randrange(14):
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
                return f"DELETE FROM meters WHERE id = {choose.randint(2, METERS)}"
            case 10:
                return f"INSERT INTO meters VALUES ({meter}, 'again') ON CONFLICT (id) DO UPDATE SET name = 'renamed'"
            case 11:
                return f"DELETE FROM samples WHERE id = {few}"
            case 12:
                day = f"timestamptz '1969-12-31 23:59:59.999999Z' + interval '1 day' * {choose.randrange(3)}"
                return (
                    f"INSERT INTO samples VALUES ({few}, {choose.choice((1, 1, meter))}, {day}, {value})"
                    " ON CONFLICT (id) DO UPDATE"
                    " SET meter_id = excluded.meter_id, at = excluded.at, value = excluded.value"
                )
            case _:
                return f"UPDATE meters SET hidden = NOT hidden WHERE id = {meter}"
