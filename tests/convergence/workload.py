"""Runs concurrent writers. Each runs random operations in transactions of every kind until `stop`.

Some transactions are rolled back, completely or to a savepoint. Some are prepared first and committed later. Some are
serializable, and some commit asynchronously. A transaction that PostgreSQL rejects is rolled back and counted. While
the server is unavailable, the writers wait for it, as applications do.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import psycopg

from tests.convergence import operations
from tests.convergence.operation_mix import OPERATIONS, SWEEPING
from tests.convergence.operations import PERSON, Operation, add_many
from tests.convergence.values import Row
from tests.harness import Database
from tests.harness.waiting import remaining

_MINIMUM = {
    "tenants": (12, operations.new_tenant),
    PERSON: (25, operations.new_person),
    "labels": (10, operations.new_label),
    "projects": (40, operations.add_project),
    "tasks": (60, operations.add_task),
    "entries": (40, operations.add_entries),
}
_REJECTIONS = (
    psycopg.errors.IntegrityError,  # a foreign key, a unique key, a NULL
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


class Writer:
    """Runs one session of the application. Use it in one thread.

    number: the index of the writer.
    of: the number of writers. Both together make the new keys of all writers distinct.
    """

    def __init__(self, database: Database, seed: str, number: int, of: int) -> None:
        self.random = random.Random(f"{seed}/{number}")
        self.done: Counter[str] = Counter()
        self.rows = 0
        self._next, self._step = 1000 + number, of
        self._prepared = 0
        self._database, self._number = database, number
        self._name = f"{database.name}-{number}"
        self.connection = self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        connection = self._database.connect()
        connection.execute("SET lock_timeout = '3s'; SET deadlock_timeout = '200ms'")
        if self._number % 2:
            connection.execute("SET synchronous_commit = off")
        return connection

    def _connect_again(self) -> None:
        """Waits for the server and connects again. Rolls back the prepared transactions, which would stay forever."""
        self.connection.close()
        for _ in remaining(time.monotonic() + _SERVER_TIMEOUT):
            with contextlib.suppress(psycopg.OperationalError):
                self.connection = self._connect()
                found = "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, %s)"
                for (name,) in self.connection.execute(found, [f"{self._name}-"]).fetchall():
                    self.connection.execute(f"ROLLBACK PREPARED '{name}'".encode())
                return
        raise AssertionError(f"PostgreSQL was unavailable for more than {_SERVER_TIMEOUT:.0f} s")

    # -- the interface of operations ----------------------------------------------------------------------

    def run(self, statement: str, *values: Any) -> None:
        self.rows += max(0, self.connection.execute(statement.encode(), values or None).rowcount)

    def copy(self, statement: str, rows: Iterable[Row]) -> None:
        with self.connection.cursor() as cursor:
            with cursor.copy(statement.encode()) as lines:
                for row in rows:
                    lines.write_row(row)
            self.rows += max(0, cursor.rowcount)

    def fetch_one(self, statement: str, *values: Any) -> Row | None:
        return self.connection.execute(statement.encode(), values or None).fetchone()

    def next_id(self) -> int:
        self._next += self._step
        return self._next

    # -- transactions ------------------------------------------------------------------------------------

    def transact(self, *, calm: bool) -> None:
        """Runs a transaction of one to four operations. calm: excludes operations that make every document dirty."""
        often = [0.0 if calm and name in SWEEPING else often for name, (often, _) in OPERATIONS.items()]
        names = self.random.choices(list(OPERATIONS), often, k=4)
        some = names[: self.random.choice((1, 1, 2, 3, 4))]
        kind = self.random.choices(list(_KINDS), list(_KINDS.values()))[0]
        self.perform({name: OPERATIONS[name][1] for name in some}, kind)

    def perform(self, some: dict[str, Operation], kind: str = "commit") -> None:
        """Runs a transaction of these operations. Counts it as `kind`, or as rejected."""
        try:
            self.connection.execute("BEGIN")
            if kind == "serializable":
                self.connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            for operation in some.values():
                if kind == "savepoints":
                    self._in_savepoints(operation)
                else:
                    operation(self)
            self._finish(kind)
        except _REJECTIONS as error:
            self.connection.execute("ROLLBACK")
            kind = f"rejected: {type(error).__name__}"
        except psycopg.OperationalError:
            self._connect_again()
            kind = "rejected: the server was unavailable"
        self.done[kind] += 1
        if not kind.startswith("rejected"):
            self.done.update(f"operation: {name}" for name in some)

    def _in_savepoints(self, operation: Operation) -> None:
        """Runs the operation in one or two savepoints. Some are rolled back, others are released."""
        for end in self.random.choice((("ROLLBACK TO", "RELEASE"), ("RELEASE",), ("RELEASE", "ROLLBACK TO"))):
            self.connection.execute("SAVEPOINT one")
            operation(self)
            self.connection.execute(f"{end} SAVEPOINT one".encode())

    def _finish(self, kind: str) -> None:
        if kind == "prepared":
            self._prepared += 1
            name = f"{self._name}-{self._prepared}"
            self.connection.execute(f"PREPARE TRANSACTION '{name}'".encode())
            time.sleep(self.random.random() * 0.3)  # other writers continue
            end = self.random.choice(("COMMIT", "COMMIT", "ROLLBACK"))
            self.connection.execute(f"{end} PREPARED '{name}'".encode())
        else:
            self.connection.execute("ROLLBACK" if kind == "rollback" else "COMMIT")

    def fill(self) -> None:
        """Inserts rows until every table has a minimum. Otherwise truncates would leave too few rows to test."""
        for table, (minimum, operation) in _MINIMUM.items():
            while self._count(table) < minimum:
                self.perform({f"fill {table}": operation})

    def _count(self, table: str) -> int:
        try:
            return int((self.fetch_one(f"SELECT count(*) FROM {table}") or (0,))[0])
        except psycopg.OperationalError:
            self._connect_again()
            return 0


_SERVER_TIMEOUT = 60.0
_KINDS = {"commit": 70, "savepoints": 12, "rollback": 10, "serializable": 5, "prepared": 3}


class Workload:
    """Runs writers in threads.

    writers: the number of writers.
    rate: transactions per second of all writers together.
    """

    def __init__(self, database: Database, seed: str, writers: int, rate: float) -> None:
        self.database = database
        self.writers = [Writer(database, seed, number, writers + 1) for number in range(writers)]
        self._own = Writer(database, seed, writers, writers + 1)
        self._own.connection.execute("SET deadlock_timeout = '3s'")  # in a deadlock, another session is the victim
        self._pause = writers / rate
        self._stop, self._calm = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(writer,), name=f"writer-{number}")
            for number, writer in enumerate(self.writers)
        ]
        self._failed: list[BaseException] = []

    def seed_rows(self, projects: int) -> None:
        """Inserts rows before the connector exists. Only a backfill delivers them."""
        self._own.fill()
        for _ in range(projects):
            self._own.perform({"fill projects": operations.add_project})
        self._own.perform({"fill many": add_many})

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def do(self, name: str) -> None:
        """Runs an operation now, in the thread of the caller. Repeats it until it is not rejected."""
        before = self._own.done[f"operation: {name}"]
        while self._own.done[f"operation: {name}"] == before:
            self._own.perform({name: OPERATIONS[name][1]})

    def calm(self) -> None:
        """Excludes operations that make every document dirty from now on. They would hide lost changes."""
        self._calm.set()

    def stop(self) -> None:
        """Ends all writers after their current transaction. Raises the first error of a writer."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._failed:
            raise self._failed[0]
        self._own.fill()

    def close(self) -> None:
        for writer in (*self.writers, self._own):
            writer.connection.close()

    @property
    def done(self) -> Counter[str]:
        """Returns the number of transactions of each kind, and of operations (with the prefix "operation: ")."""
        return sum((writer.done for writer in (*self.writers, self._own)), Counter())

    @property
    def transactions(self) -> int:
        return sum(count for name, count in self.done.items() if not name.startswith("operation"))

    @property
    def rows(self) -> int:
        """Returns the number of written rows, including those of transactions that were rolled back."""
        return sum(writer.rows for writer in self.writers)

    def summary(self) -> str:
        """Returns a summary for the log of the test."""
        done = self.done
        kinds = {name: count for name, count in done.items() if not name.startswith("operation")}
        truncates = sum(count for name, count in done.items() if "truncate" in name)
        counts = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items(), key=lambda item: -item[1]))
        return f"{self.transactions} transactions ({counts}), {self.rows} rows written, {truncates} truncates"

    def _write(self, writer: Writer) -> None:
        try:
            while not self._stop.wait(writer.random.expovariate(1 / self._pause)):
                if writer.random.random() < 0.02:
                    writer.fill()
                writer.transact(calm=self._calm.is_set())
        except BaseException as error:
            self._failed.append(error)
