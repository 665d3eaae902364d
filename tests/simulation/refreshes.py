"""Callers who refresh a document with the token of a transaction, and the lanes that render for them.

A world has callers only if the test requests them. So the seeds of the other rounds stay valid. Here there is
one more promise: when a refresh succeeds, the sink holds the document as some state of the database showed it after
the transaction of the token became visible. A crash may take back the transaction. Then nothing can show it.

The tokens, the queue, the source and the pipeline are those of the syncer (`syncer/freshness/`). The model leaves out
HTTP, limits and generations. A token may name a subtransaction, which no snapshot lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from syncer.errors import Fatal, Retry
from syncer.freshness.refresh_queue import RefreshQueue, RefreshSource, Ticket
from syncer.freshness.refused import Refused
from syncer.freshness.snapshots import Observation, satisfies
from syncer.freshness.tokens import Token, TokenKind
from syncer.pacing import Stopped
from syncer.pipeline.lane import Lane
from syncer.ports import DeadLetters, Record, Source
from syncer.postgres.head import FUTURE
from tests.simulation.application import Sizes, document
from tests.simulation.database import Database, Transaction
from tests.simulation.history import History
from tests.simulation.scheduler import Actor, Owner, Scheduler, Stop
from tests.simulation.sink import Store


class Surroundings(Protocol):
    """The parts of the world that callers need."""

    database: Database
    scheduler: Scheduler
    history: History
    sizes: Sizes
    store: Store

    def fail(self, why: str) -> NoReturn: ...


class UntilEmpty(RefreshSource):
    """Ends its lane when the queue is empty, instead of waiting for the next caller in real time."""

    stop: Stop

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        idle = not self._batch
        records = super().poll(0.0, max_records, max_bytes)
        if idle and not records:
            self.stop.set()
        return records


class Refreshes:
    """The callers and the lane of one process. make: returns a lane over a source."""

    def __init__(
        self,
        world: Surroundings,
        process: Owner,
        make: Callable[[Source, DeadLetters, Stop], Lane],
        letters: DeadLetters,
    ) -> None:
        self.world, self.process, self._make, self._letters = world, process, make, letters
        self.queue = RefreshQueue(100)
        self._lane: Actor | None = None

    def request(self, transaction: Transaction, id: int, *, sub: bool) -> None:
        """Starts a caller. sub: whether its token names the last subtransaction."""
        token = Token(TokenKind.TRANSACTION, transaction.last if sub else transaction.xid)
        who, issued = f"{self.process}, caller", self.world.database.incarnation

        def run() -> None:
            self._refresh(who, transaction, token, id, issued)

        self.world.scheduler.spawn(who, self.process, run)

    def _refresh(self, who: str, transaction: Transaction, token: Token, id: int, issued: int) -> None:
        world = self.world
        world.history.log(who, "asks for order %s with %s (token %s)", id, transaction, token)
        incarnation = world.database.incarnation
        before = self._accidents()
        try:
            self.await_token(transaction, token)
            ticket = self.queue.submit([(str(id),)])
            self._start_lane()
            world.scheduler.until(ticket.done.is_set)
            if ticket.error:
                raise ticket.error
        except (Refused, Retry, Fatal) as error:
            world.history.log(who, "gets no document: %s", error.what)
            return
        if world.database.incarnation != incarnation:
            return  # the connection of the token was lost: the caller gets an error
        world.history.seen["a refresh succeeded"] += 1
        if self._accidents() == before and not self._rejected(ticket):
            self._check(who, transaction, id, issued)

    def await_token(self, transaction: Transaction, token: Token) -> None:
        """Waits for a snapshot that sees the token's commit, as `freshness.snapshots.await_snapshot` does."""
        world = self.world
        while not satisfies(token, self.observe(transaction, token)):
            world.history.seen["a refresh waited for its transaction"] += 1
            world.scheduler.sleep(0.02)

    def observe(self, transaction: Transaction, token: Token) -> Observation:
        """Reads the status, then takes a snapshot. `pg_xact_status` knows subtransactions.

        After a crash, the ids of a lost transaction may not be assigned yet.
        """
        database = self.world.database
        status = FUTURE if token.value >= database.next_xid else database.status(transaction.xid)
        self.world.scheduler.pause()
        return Observation(database.snapshot(), database.identity, database.inserted, status)

    def _start_lane(self) -> None:
        if self._lane is None or self._lane.greenlet.dead:
            self._lane = self.world.scheduler.spawn(f"{self.process}, refresh", self.process, self._run_lane)

    def _run_lane(self) -> None:
        stop = Stop()
        source = UntilEmpty(self.queue, "work", 0, self._letters)
        source.stop = stop
        lane = self._make(source, source, stop)
        try:
            lane.run()
        except Stopped:
            source.fail(Retry("stopped"))
        except (Retry, Fatal) as error:
            source.fail(error)

    def _accidents(self) -> tuple[int, int, int]:
        """The promise holds unless the sink loses data or the server restarts. Repairs are promised elsewhere."""
        return self.world.store.losses, self.world.store.restarts, self.world.database.incarnation

    def _rejected(self, ticket: Ticket) -> bool:
        return any(render.rejected for render in ticket.renders.values())

    def _check(self, who: str, transaction: Transaction, id: int, issued: int) -> None:
        world = self.world
        states = world.database.states
        since = next((at for at, (shown, _) in enumerate(states) if shown is transaction), len(states))
        if since == len(states) and issued != world.database.incarnation:
            return  # a crash took the transaction back before the caller asked
        held = world.store.documents.get(str(id))
        body = held[1] if held else None
        if not any(document(rows, id, world.sizes) == body for _, rows in states[since:]):
            world.fail(f"{who} was answered that order {id} shows {transaction}, and the sink has {body!r}")
        world.history.seen["a refreshed document was compared"] += 1
