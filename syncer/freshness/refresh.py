"""Refreshes documents on request: renders them from PostgreSQL and writes them to every sink now.

    1 limits      how often a client and a document may be refreshed; how many requests at a time
    2 token       a snapshot sees the commit that the caller names                    snapshots.py
    3 roots       the documents that the request is about                             refresh_roots.py
    4 render      a later snapshot, flushed WAL, every sink, dead letters             refresh_lanes.py
    5 confirm     applications read the generation that was written                   generations.py
    6 connection  PostgreSQL has not restarted since step 2, so the commit is not lost

A refresh needs neither Kafka Connect nor the stream of changes. The documents of the response show the commit of the
token. Every later read shows it, too, until a later commit changes the documents.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any

import psycopg

from syncer import document
from syncer.clock import version
from syncer.errors import Retry
from syncer.events import Key
from syncer.freshness import refresh_request
from syncer.freshness.generations import Generations
from syncer.freshness.rate_limit import RateLimit
from syncer.freshness.refresh_lanes import RefreshLanes, RefreshObserver
from syncer.freshness.refresh_queue import RefreshQueue, RefreshSource, Render, rejected
from syncer.freshness.refresh_request import RefreshRequest
from syncer.freshness.refresh_roots import Roots
from syncer.freshness.refused import Later, Refused
from syncer.freshness.snapshots import Observation, await_snapshot
from syncer.pacing import Stopped, Waiter
from syncer.pipeline.circuit_breaker import CircuitBreaker
from syncer.pipeline.combine import split_id
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.visibility import VisibilityGate
from syncer.ports import Observer
from syncer.postgres.session import classify_error, connect
from syncer.quantities import counted
from syncer.session import ModelSession
from syncer.telemetry.metrics import ModelMetrics

_SHOWN = 5
"""Refused documents that a message names."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The response to a request."""

    model: str
    refreshed: int
    """The number of documents."""
    version: int
    """Every document has this version or a newer one, in every sink."""
    snapshot_at: str
    """The documents show PostgreSQL as it was at this time or later (ISO 8601, UTC, the syncer's clock)."""


class Refresher:
    """Refreshes documents of one open read model. Any thread may call `refresh`. Call `close` before the session ends.

    client_limit, key_limit: shared by the sessions of a read model.
    """

    def __init__(
        self, session: ModelSession, metrics: ModelMetrics, *, client_limit: RateLimit, key_limit: RateLimit
    ) -> None:
        config, compiled = session.config, session.loaded.compiled
        self.session, self._settings, self._compiled = session, config.refresh, compiled
        self._client_limit, self._key_limit = client_limit, key_limit
        self._free = threading.Semaphore(config.refresh.max_requests)
        self._readers: list[_Reader] = []
        self._readers_lock, self._stop = threading.Lock(), threading.Event()
        self._roots = Roots(compiled, session.loaded.catalog.tables, config.refresh.max_documents)
        in_place = any(sink.in_place for sink in session.sinks)
        self._generations = Generations(session.registry, session.registration, compiled, in_place=in_place)
        self._queue = RefreshQueue(config.pipeline.chunk_documents)
        self._lanes = RefreshLanes(compiled.name, config.refresh.lanes, self._queue, self._lane, metrics)
        self._observer = RefreshObserver(metrics)

    def parse(self, body: Any) -> RefreshRequest:
        """Returns the request of a JSON body. Raises Refused."""
        settings = self._settings
        return refresh_request.parse(
            body,
            self._compiled,
            timeout=settings.timeout,
            max_timeout=settings.max_timeout,
            most=settings.max_documents,
        )

    def refresh(self, request: RefreshRequest, client: str = "") -> Refreshed:
        """Returns when every sink has the documents. client: whose rate is limited; empty for the operator.

        Raises Refused (400, 409, 413, 422), Later (429, 504), GenerationChanged, Retry (a server is busy or
        unreachable), and Fatal (the read model has to stop).
        """
        deadline = time.monotonic() + request.timeout
        if client:
            self._limit(self._client_limit, [client], request.size, "the client refreshes too many documents")
        if not self._free.acquire(blocking=False):
            raise Retry(
                "too many refreshes are in progress",
                where=self._compiled.name,
                why=f"refresh.max_requests is {self._settings.max_requests}",
                hint="send the request again later, or wait until the documents show the commit (GET /wait)",
            )
        try:
            with self._reader() as reader:
                return self._refresh(request, reader, deadline)
        except Stopped:
            raise Retry("the read model is being stopped or opened again", where=self._compiled.name) from None
        finally:
            self._free.release()

    def close(self) -> None:
        """Ends the lanes and closes the connections. Callers that wait get a Retry."""
        self._stop.set()
        self._lanes.close()
        with self._readers_lock:
            for reader in self._readers:
                reader.close()
            self._readers.clear()

    def _refresh(self, request: RefreshRequest, reader: _Reader, deadline: float) -> Refreshed:
        seen = await_snapshot(reader.connection, request.token, _left(deadline), reader.wait)
        roots = self._roots.find(request, reader.connection, reader.gate)
        ids = [document.document_id(key) for key in roots]
        self._limit(self._key_limit, ids, 1, "a document is refreshed too often")
        renders = self._render(roots, deadline)
        if bad := rejected(renders):
            raise self._rejected(bad, len(renders))
        self._generations.confirm(roots, self.session.config.pipeline.chunk_documents)
        reader.require_alive()
        return self._refreshed(renders, seen)

    def _render(self, roots: list[Key], deadline: float) -> dict[Key, Render]:
        self._lanes.start()
        ticket = self._queue.submit(roots)
        if not ticket.done.wait(_left(deadline)):
            self._queue.abandon(ticket)
            late = f"of {counted(len(roots), 'document')}"
            raise Retry(
                counted(len(ticket.waiting), f"{late} was not refreshed in time", f"{late} were not refreshed in time"),
                where=self._compiled.name,
                why=self._lanes.reason or "a server is busy",
                hint="send the request again, with a longer timeout",
            )
        if ticket.error:
            raise ticket.error
        return ticket.renders

    def _refreshed(self, renders: dict[Key, Render], seen: Observation) -> Refreshed:
        """seen: the snapshot of the token. It counts if no document belongs to the request."""
        lowest = version(self.session.registration.epoch, seen.snapshot.clock)
        begun_ms = time.time_ns() // 1_000_000
        return Refreshed(
            self._compiled.name,
            len(renders),
            min((render.version for render in renders.values()), default=lowest),
            _iso(min((render.begun_ms for render in renders.values()), default=begun_ms)),
        )

    def _rejected(self, bad: Any, total: int) -> Refused:
        all_of = f"of {counted(total, 'document')}"
        shown = "; ".join(f"document {id}: {why}" for id, why in bad[:_SHOWN])
        return Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            counted(
                len(bad),
                f"{all_of} was refused; it has a dead letter",
                f"{all_of} were refused; each has a dead letter",
            ),
            where=self._compiled.name,
            why=shown,
            hint=f"syncer dlq list {self._compiled.name}",
        )

    def _limit(self, limit: RateLimit, names: list[str], units: int, what: str) -> None:
        if wait := limit.take(names, time.monotonic(), units):
            raise Later(
                HTTPStatus.TOO_MANY_REQUESTS,
                what,
                where=self._compiled.name,
                why=f"it may do so again in {wait:.1f} s",
                hint="send fewer requests, or raise refresh.client_rate or refresh.key_rate",
            )

    def _lane(self, number: int, observer: RefreshObserver, stop: threading.Event) -> tuple[RefreshSource, Lane]:
        session = self.session
        partials = self._compiled.partials
        source = RefreshSource(
            self._queue,
            session.names.work_topic,
            number,
            session.dead_letters.writer(),
            (lambda id: split_id(partials, id)[0]) if partials else str,
        )
        lane = session.lane(
            source,
            observer,
            stop,
            items=True,
            dead_letters=source,
            breaker=CircuitBreaker(self._compiled.name, 0),
            commit_interval=0.0,
        )
        return source, lane

    @contextlib.contextmanager
    def _reader(self) -> Iterator[_Reader]:
        """Lends the connections of one caller. They are reused, unless the caller ended with an error."""
        with self._readers_lock:
            reader = self._readers.pop() if self._readers else None
        reader = reader or _Reader(self.session, self._observer, self._stop)
        try:
            yield reader
        except (Refused, Later):
            self._return(reader)
            raise
        except BaseException:
            reader.close()
            raise
        self._return(reader)

    def _return(self, reader: _Reader) -> None:
        with self._readers_lock:
            if not self._stop.is_set():
                self._readers.append(reader)
                return
        reader.close()


class _Reader:
    """The connections of one caller: one for tokens and keys, one for look-ups in views."""

    def __init__(self, session: ModelSession, observer: Observer, stop: threading.Event) -> None:
        self._connect = partial(
            connect,
            session.config.postgres.arguments(),
            statement_timeout=session.config.postgres.statement_timeout,
        )
        self._connection: psycopg.Connection[Any] | None = None
        self._model, self._rows, self.wait = session.loaded.name, session.rows(), Waiter(stop)
        self.gate = VisibilityGate(
            self._model, self._rows, session.clock, limits=Limits(), wait=self.wait, observer=observer
        )

    @property
    def connection(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def require_alive(self) -> None:
        """Raises Retry if PostgreSQL may have restarted since the connection was used. A crash can lose commits."""
        try:
            if self._connection is None:
                raise AssertionError("the connection was not used")
            self._connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise classify_error(error, "PostgreSQL may have restarted meanwhile", where=self._model) from error

    def close(self) -> None:
        self._rows.close()
        if self._connection is not None:
            self._connection.close()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
