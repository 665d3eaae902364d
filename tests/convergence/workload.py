"""Concurrent writers: each does random operations in transactions of every kind, until told to stop.

Some transactions are rolled back, some in part (savepoints), some are prepared first and committed later,
some are serializable, some are committed asynchronously. What PostgreSQL refuses is rolled back and counted;
when the server is gone, the writer waits for it, as applications do.
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
from tests.convergence.operations import OPERATIONS, PERSON, SWEEPING, Operation, add_many
from tests.convergence.values import Row
from tests.harness import Database
from tests.harness.waiting import remaining

_LEAST = {
    "tenants": (12, operations.new_tenant),
    PERSON: (25, operations.new_person),
    "labels": (10, operations.new_label),
    "projects": (40, operations.add_project),
    "tasks": (60, operations.add_task),
    "entries": (40, operations.add_entries),
}
_REFUSALS = (
    psycopg.errors.IntegrityError,  # a foreign key, a unique key, a NULL
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


class Writer:
    """One session of the application. For one thread.

    number, of: which of how many writers it is; keeps their new keys apart.
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
        """The server is gone. What it was told to prepare before is still there, and would stay for ever."""
        self.connection.close()
        for _ in remaining(time.monotonic() + _SERVER_WITHIN):
            with contextlib.suppress(psycopg.OperationalError):
                self.connection = self._connect()
                found = "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, %s)"
                for (name,) in self.connection.execute(found, [f"{self._name}-"]).fetchall():
                    self.connection.execute(f"ROLLBACK PREPARED '{name}'".encode())
                return
        raise AssertionError(f"PostgreSQL was away for more than {_SERVER_WITHIN:.0f} s")

    # -- what operations work with ------------------------------------------------------------------------

    def run(self, statement: str, *values: Any) -> None:
        self.rows += max(0, self.connection.execute(statement.encode(), values or None).rowcount)

    def copy(self, statement: str, rows: Iterable[Row]) -> None:
        with self.connection.cursor() as cursor:
            with cursor.copy(statement.encode()) as lines:
                for row in rows:
                    lines.write_row(row)
            self.rows += max(0, cursor.rowcount)

    def ask(self, statement: str, *values: Any) -> Row | None:
        return self.connection.execute(statement.encode(), values or None).fetchone()

    def fresh(self) -> int:
        self._next += self._step
        return self._next

    # -- transactions ------------------------------------------------------------------------------------

    def transact(self, *, calm: bool) -> None:
        """One transaction of one to four operations. calm: none that makes every document dirty."""
        often = [0.0 if calm and name in SWEEPING else often for name, (often, _) in OPERATIONS.items()]
        names = self.random.choices(list(OPERATIONS), often, k=4)
        some = names[: self.random.choice((1, 1, 2, 3, 4))]
        kind = self.random.choices(list(_KINDS), list(_KINDS.values()))[0]
        self.perform({name: OPERATIONS[name][1] for name in some}, kind)

    def perform(self, some: dict[str, Operation], kind: str = "commit") -> None:
        """A transaction of these operations; counted as `kind`, or as refused."""
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
        except _REFUSALS as error:
            self.connection.execute("ROLLBACK")
            kind = f"refused: {type(error).__name__}"
        except psycopg.OperationalError:
            self._connect_again()
            kind = "refused: the server was gone"
        self.done[kind] += 1
        if not kind.startswith("refused"):
            self.done.update(f"operation: {name}" for name in some)

    def _in_savepoints(self, operation: Operation) -> None:
        """Once for nothing, once for good; and once more below, for nothing again."""
        for end in self.random.choice((("ROLLBACK TO", "RELEASE"), ("RELEASE",), ("RELEASE", "ROLLBACK TO"))):
            self.connection.execute("SAVEPOINT one")
            operation(self)
            self.connection.execute(f"{end} SAVEPOINT one".encode())

    def _finish(self, kind: str) -> None:
        if kind == "prepared":
            self._prepared += 1
            name = f"{self._name}-{self._prepared}"
            self.connection.execute(f"PREPARE TRANSACTION '{name}'".encode())
            time.sleep(self.random.random() * 0.3)  # meanwhile others go on
            end = self.random.choice(("COMMIT", "COMMIT", "ROLLBACK"))
            self.connection.execute(f"{end} PREPARED '{name}'".encode())
        else:
            self.connection.execute("ROLLBACK" if kind == "rollback" else "COMMIT")

    def fill(self) -> None:
        """Until every table has some rows: truncates must not make everything easy."""
        for table, (least, adding) in _LEAST.items():
            while self._count(table) < least:
                self.perform({f"fill {table}": adding})

    def _count(self, table: str) -> int:
        try:
            return int((self.ask(f"SELECT count(*) FROM {table}") or (0,))[0])
        except psycopg.OperationalError:
            self._connect_again()
            return 0


_SERVER_WITHIN = 60.0
_KINDS = {"commit": 70, "savepoints": 12, "rollback": 10, "serializable": 5, "prepared": 3}


class Workload:
    """writers: how many at once. rate: transactions a second, of all together."""

    def __init__(self, database: Database, seed: str, writers: int, rate: float) -> None:
        self.database = database
        self.writers = [Writer(database, seed, number, writers + 1) for number in range(writers)]
        self._own = Writer(database, seed, writers, writers + 1)
        self._own.connection.execute("SET deadlock_timeout = '3s'")  # in a deadlock, another one gives in
        self._pause = writers / rate
        self._stop, self._calm = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(writer,), name=f"writer-{number}")
            for number, writer in enumerate(self.writers)
        ]
        self._failed: list[BaseException] = []

    def seed_rows(self, projects: int) -> None:
        """Rows from before anybody listened: only a backfill brings them."""
        self._own.fill()
        for _ in range(projects):
            self._own.perform({"fill projects": operations.add_project})
        self._own.perform({"fill many": add_many})

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def do(self, name: str) -> None:
        """An operation now, by the caller; again if it is refused."""
        before = self._own.done[f"operation: {name}"]
        while self._own.done[f"operation: {name}"] == before:
            self._own.perform({name: OPERATIONS[name][1]})

    def calm(self) -> None:
        """From now on, nothing that makes every document dirty: it would hide what was missed before."""
        self._calm.set()

    def stop(self) -> None:
        """The last transaction of every writer is over when this returns. Raises what went wrong in one."""
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
        """How many transactions of each kind; how many operations, which begin so."""
        return sum((writer.done for writer in (*self.writers, self._own)), Counter())

    @property
    def transactions(self) -> int:
        return sum(count for name, count in self.done.items() if not name.startswith("operation"))

    @property
    def rows(self) -> int:
        """Rows written by the writers, also in what came to nothing."""
        return sum(writer.rows for writer in self.writers)

    def summary(self) -> str:
        """How much was written, for the log of the run."""
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
