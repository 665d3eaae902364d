"""Checks on real servers, while they have faults, that no answer about freshness is false.

A thread writes to two tables that no other writer uses, so it knows every document from its own commits. After each
write it calls `/wait` on a random daemon. If the answer is 200, it reads documents from each sink. They must show
the write, or a later one. It also reads watermarks from `/status` and from the sinks: no document may be older than the
watermark says.

A write sets a number that only grows, so a document with a lower number than expected is older than promised.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import redis
import urllib3

from tests.convergence.deployment import Deployment, Process
from tests.harness.waiting import until

MODEL = "notes"
_OWNERS, _NOTES = 3, 450
"""Rows. A change of an owner makes more documents stale than the fan-out limit, so items of work follow."""
_CHECKED = 5
"""Documents that are read after a change of an owner, from each sink."""
_WAIT_TIMEOUT = 10.0  # seconds
_REPAIR_TIMEOUT = 600.0  # seconds
_PAUSE = 0.05  # seconds between two writes
_TABLES = """
CREATE TABLE owners (id integer PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE notes (id integer PRIMARY KEY, owner integer NOT NULL, n bigint NOT NULL);
CREATE INDEX ON notes (owner);
ALTER TABLE notes REPLICA IDENTITY FULL
"""
_READ_MODEL = """
name: PREFIX-notes
root: {table: public.notes}
document:
  id: id
  n: n
  owner: {one: public.owners, on: {id: owner}, value: n}
sink:
  elasticsearch:
    index: PREFIX-notes
    settings: {number_of_shards: 2, number_of_replicas: 0}
  redis:
    key: PREFIX:note:{id}
    format: json
"""


class FalseFresh(AssertionError):
    """A document is older than `/wait` or a watermark said."""


@dataclass(frozen=True)
class Write:
    """A committed write. began, ended: when its transaction began and when the commit returned, in Unix seconds."""

    number: int
    began: float
    ended: float


def declare(deployment: Deployment) -> None:
    """Creates the tables with their rows, and declares the read model."""
    with deployment.database.connect() as session:
        session.execute(_TABLES.encode())
        session.execute(f"INSERT INTO owners SELECT o, 0 FROM generate_series(1, {_OWNERS}) o".encode())
        session.execute(
            f"INSERT INTO notes SELECT n, 1 + n % {_OWNERS}, 0 FROM generate_series(1, {_OWNERS * _NOTES}) n".encode()
        )
    deployment.declare(MODEL, _READ_MODEL)


class OwnWrites:
    """Writes, waits and reads on a thread, until `stop`.

    daemons: returns the running daemons.
    losses: periods in which Redis may have lost acknowledged documents, in Unix seconds. The end of a period that has
    not ended is infinite.
    """

    def __init__(
        self,
        deployment: Deployment,
        seed: str,
        daemons: Callable[[], Sequence[Process]],
        losses: Sequence[tuple[float, float]],
    ) -> None:
        self.random = random.Random(f"{seed}/own writes")
        self.answers: Counter[int] = Counter()
        """Status of `/wait` → how often it was answered."""
        self.samples = 0
        """Watermarks that were compared with documents."""
        self._arguments = deployment, f"{seed}+", daemons, losses
        self._deployment, self._daemons, self._losses = deployment, daemons, losses
        self._model = deployment.model(MODEL)
        self._number = 0
        self._notes: dict[int, list[Write]] = {}
        self._owners: dict[int, list[Write]] = {}
        self._redis = redis.Redis.from_url(deployment.stack.redis, socket_timeout=5)
        self._http = urllib3.PoolManager(retries=False, timeout=_WAIT_TIMEOUT + 5)
        self._connection: psycopg.Connection[Any] | None = None
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="own-writes", daemon=True)

    def again(self) -> OwnWrites:
        """Returns a thread that continues after this one has stopped, with the same counts."""
        following = OwnWrites(*self._arguments)
        following.answers, following.samples, following._number = self.answers, self.samples, self._number
        return following

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. Raises its first error: FalseFresh, or an answer that has no excuse."""
        self._stop.set()
        self._thread.join()
        self._redis.close()
        self._http.clear()
        if self._connection is not None:
            self._connection.close()
        if self._failed:
            raise self._failed[0]

    def require_answers(self, count: int, seconds: float, repairs: Callable[[], bool]) -> None:
        """Waits until this number of further waits was answered with 200. Raises AssertionError if they were not.

        repairs: returns whether all documents are being rendered again. The seconds count after that: until then,
        nobody can know that a read model is fresh.
        """
        wanted = self.answers[200] + count
        quiet_since = time.monotonic()

        def done() -> bool:
            nonlocal quiet_since
            if repairs():
                quiet_since = time.monotonic()
            return self._answered(wanted) or time.monotonic() - quiet_since > seconds

        until(done, "the repair has finished", _REPAIR_TIMEOUT)
        if not self._answered(wanted):
            raise AssertionError(f"waits were not answered with 200 after the faults: {dict(self.answers)}")

    def _answered(self, wanted: int) -> bool:
        return bool(self._failed) or self.answers[200] >= wanted

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with contextlib.suppress(psycopg.OperationalError):
                    self._write_and_wait()
                self._sample()
                self._sample_sinks()
                self._stop.wait(_PAUSE)  # a daemon that cannot wait answers at once
        except BaseException as error:
            self._failed.append(error)

    # -- a write, and the wait for it -----------------------------------------------------------------

    def _write_and_wait(self) -> None:
        if self.random.random() < 0.8:
            id = self.random.randint(1, _OWNERS * _NOTES)
            write, xid = self._write("notes", id)
            self._notes.setdefault(id, []).append(write)
            wanted = {id: (write.number, 0)}
        else:
            id = self.random.randint(1, _OWNERS)
            write, xid = self._write("owners", id)
            self._owners.setdefault(id, []).append(write)
            wanted = dict.fromkeys(self._of_owner(id), (0, write.number))
        if self._wait(f"x:{xid}") == 200:
            self._check(wanted, write.began, f"/wait was answered with 200 for x:{xid}, committed at {write.ended:.3f}")

    def _write(self, table: str, id: int) -> tuple[Write, str]:
        if self._connection is None or self._connection.closed:
            self._connection = self._deployment.database.connect(autocommit=False)
        self._number += 1
        number, began = self._number, time.time()
        try:
            self._connection.execute(f"UPDATE {table} SET n = {number} WHERE id = {id}".encode())
            row = self._connection.execute("SELECT pg_current_xact_id()::text").fetchone()
            self._connection.commit()
        except psycopg.OperationalError:
            self._connection.close()
            raise
        assert row
        return Write(number, began, time.time()), str(row[0])

    def _of_owner(self, owner: int) -> list[int]:
        notes = [id for id in range(1, _OWNERS * _NOTES + 1) if 1 + id % _OWNERS == owner]
        return self.random.sample(notes, _CHECKED)

    def _wait(self, token: str) -> int:
        found = self._get(f"/wait?model={self._model}&token={token}&timeout={_WAIT_TIMEOUT:g}")
        if found is None:
            return 0
        status, body = found
        self.answers[status] += 1
        if status not in (200, 404, 429, 503, 504):  # 404: the daemon has not opened the read model yet
            raise AssertionError(f"/wait?token={token} was answered with {status}: {body}")
        return status

    # -- a watermark -----------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Reads the watermark of a daemon, then some documents. They must show all writes that are older."""
        asked = time.time()
        found = self._get(f"/status?model={self._model}")
        staleness = found[1].get("staleness_seconds") if found and found[0] == 200 else None
        if staleness is None:
            return
        self._check_watermark(asked - staleness - 0.001)  # the status is rounded to milliseconds

    def _sample_sinks(self) -> None:
        """Reads the watermark that is published in each sink, then some of its documents."""
        for sink, read in (("elasticsearch", self._published_in_elasticsearch), ("redis", self._published_in_redis)):
            with contextlib.suppress(urllib3.exceptions.HTTPError, redis.RedisError, OSError):
                if taken_at := read():
                    self._check_watermark(datetime.fromisoformat(taken_at).timestamp(), sink)

    def _published_in_elasticsearch(self) -> str | None:
        base = self._deployment.stack.elasticsearch
        indexes = json.loads(self._http.request("GET", f"{base}/_alias/{self._model}").data)
        if len(indexes) != 1 or "error" in indexes:
            return None
        found = json.loads(self._http.request("GET", f"{base}/syncer-watermarks/_doc/{next(iter(indexes))}").data)
        taken_at: str | None = found.get("_source", {}).get("taken_at")
        return taken_at

    def _published_in_redis(self) -> str | None:
        key = f"syncer:watermark:{self._deployment.names.prefix}:note:{{id}}"
        found: Any = self._redis.hget(key, "taken_at")
        return found.decode() if found else None

    def _check_watermark(self, taken: float, *sinks: str) -> None:
        """Reads some documents. They must show all writes before the watermark was taken, in Unix seconds."""
        some = self.random.sample(sorted(self._notes), min(_CHECKED, len(self._notes)))
        wanted = {
            id: (_last_before(self._notes[id], taken), _last_before(self._owners.get(1 + id % _OWNERS, []), taken))
            for id in some
        }
        self.samples += 1
        where = f"published in {sinks[0]}" if sinks else "in /status"
        self._check(wanted, taken, f"the watermark {where} is of {taken:.3f} or later", *sinks)

    # -- documents -------------------------------------------------------------------------------------

    def _check(self, wanted: dict[int, tuple[int, int]], since: float, promise: str, *sinks: str) -> None:
        """Raises FalseFresh if a document is older than wanted.

        wanted: id → the least numbers of the note and of its owner. since: Unix seconds. Redis is not checked if it
        lost documents after that. sinks: all if empty.
        """
        readers = {"elasticsearch": self._elasticsearch, "redis": self._in_redis}
        for sink in sinks or readers:
            read = readers[sink]
            for id, least in wanted.items():
                try:
                    document = read(id)
                except (urllib3.exceptions.HTTPError, redis.RedisError, OSError):
                    continue  # the server has a fault
                found = (document["n"], document["owner"]) if document else (-1, -1)
                if found[0] >= least[0] and found[1] >= least[1]:
                    continue
                now = time.time()
                if sink == "redis" and any(begin <= now and end >= since for begin, end in self._losses):
                    continue
                raise FalseFresh(
                    f"{promise}, but document {id} in {sink} has (n, owner) = {found} instead of {least} or more,"
                    f" read before {now:.3f} ({time.strftime('%H:%M:%S')})"
                )

    def _elasticsearch(self, id: int) -> dict[str, Any] | None:
        url = f"{self._deployment.stack.elasticsearch}/{self._model}/_doc/{id}"
        response = self._http.request("GET", url)
        found = json.loads(response.data)
        if response.status == 404 and "error" not in found:
            return None
        if response.status != 200:
            raise OSError(f"{url}: {response.status}")
        source: dict[str, Any] = found["_source"]
        return source

    def _in_redis(self, id: int) -> dict[str, Any] | None:
        value: Any = self._redis.get(f"{self._deployment.names.prefix}:note:{id}")
        return json.loads(value) if value else None

    def _get(self, path: str) -> tuple[int, dict[str, Any]] | None:
        """Sends a request to a random daemon. Returns None if the daemon does not answer."""
        daemons = list(self._daemons())
        if not daemons:
            self._stop.wait(0.1)
            return None
        try:
            response = self._http.request("GET", f"http://127.0.0.1:{self.random.choice(daemons).port}{path}")
            return response.status, json.loads(response.data)
        except (urllib3.exceptions.HTTPError, OSError):
            self._stop.wait(0.1)
            return None


def _last_before(writes: Sequence[Write], moment: float) -> int:
    """Returns the number of the last write whose commit had returned before a moment; 0 if there is none."""
    return next((write.number for write in reversed(writes) if write.ended < moment), 0)
