"""Callers that wait until the documents of a read model show a commit. Any thread may add them.

Each token is mapped once to the clock of a snapshot that sees the commit (`snapshots.py`). The caller is released when
the clock of the watermark has reached this clock, in the same history of PostgreSQL. A document's version cannot prove
this: it counts completed transactions, and does not name them.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count

from syncer.clock import Identity
from syncer.errors import SyncerError
from syncer.freshness.refused import Later, Refused
from syncer.freshness.snapshots import Observation, satisfies
from syncer.freshness.tokens import Token, TokenKind
from syncer.freshness.watermark import Watermark

MOST = 5000
"""Callers that wait at once, in one process."""


@dataclass(slots=True, eq=False)
class Caller:
    """A caller that waits for a watermark. It cancels the future to give up."""

    model: str
    token: Token
    future: Future[Watermark] = field(default_factory=Future)
    wanted: int | None = None
    """The clock that the watermark has to reach. None until a snapshot has seen the token's commit."""
    identity: Identity | None = None
    """The history that the clock belongs to."""


Queue = list[tuple[int, int, Caller]]
"""The mapped callers of one read model, as a heap: clock, order of arrival, caller."""


class Waiters:
    """All callers that wait in one process. For one thread, except `add`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unmapped: list[Caller] = []
        self._queues: dict[str, Queue] = {}
        self._order = count()

    def __bool__(self) -> bool:
        return bool(self._unmapped) or any(self._queues.values())

    def wait_for(self, model: str) -> bool:
        """Returns whether a caller waits for a watermark of this read model."""
        return bool(self._queues.get(model))

    def __len__(self) -> int:
        return len(self._unmapped) + sum(map(len, self._queues.values()))

    def add(self, model: str, token: Token) -> Caller:
        """Adds a caller that waits for a watermark that shows the token's commit.

        The error of its future is Refused for a token that can never be reached. Raises Later (429) if too many
        callers wait.
        """
        with self._lock:
            if len(self) >= MOST:
                what, hint = f"{MOST:,} callers wait already", "try again in a moment"
                raise Later(HTTPStatus.TOO_MANY_REQUESTS, what, where=f"read model {model}", hint=hint)
            caller = Caller(model, token)
            self._unmapped.append(caller)
        return caller

    def map(self, observe: Callable[[Token], Observation], watermark: Callable[[str], Watermark | None]) -> bool:
        """Maps the tokens whose commit a snapshot sees now. Returns whether a caller needs a newer watermark.

        observe: reads the facts about a token; equal tokens are read once.
        watermark: returns the watermark of a read model. A caller that it satisfies is released at once.
        """
        with self._lock:
            callers, self._unmapped = self._unmapped, []
        seen: dict[Token, Observation] = {}
        left, mapped = [], False
        for caller in callers:
            if caller.future.cancelled():
                continue
            try:
                now = watermark(caller.model)
                if now and _is_before(caller.token, now):
                    _release(caller.future, now)
                    continue
                if caller.token not in seen:
                    seen[caller.token] = observe(caller.token)
                observed = seen[caller.token]
                if not satisfies(caller.token, observed):
                    left.append(caller)
                elif now and now.identity == observed.identity and now.clock >= observed.snapshot.clock:
                    _release(caller.future, now)
                else:
                    mapped = True
                    caller.wanted, caller.identity = observed.snapshot.clock, observed.identity
                    entry = caller.wanted, next(self._order), caller
                    heapq.heappush(self._queues.setdefault(caller.model, []), entry)
            except Refused as error:
                if caller.future.set_running_or_notify_cancel():
                    caller.future.set_exception(error)
        with self._lock:
            self._unmapped += left
        return mapped

    def release(self, model: str, watermark: Watermark) -> None:
        """Releases the callers whose clock the watermark has reached."""
        heap = self._queues.get(model, [])
        while heap and heap[0][0] <= watermark.clock:
            caller = heapq.heappop(heap)[2]
            if caller.identity == watermark.identity:
                _release(caller.future, watermark)
            elif caller.future.set_running_or_notify_cancel():
                caller.future.set_exception(
                    Refused(
                        HTTPStatus.CONFLICT,
                        "PostgreSQL continued with another history while the caller waited",
                        where=f"read model {model}",
                        why=f"was {caller.identity}, is {watermark.identity}",
                        hint="read from PostgreSQL: the commit may be lost",
                    )
                )

    def fail(self, model: str, error: SyncerError) -> None:
        """Ends the waits for a read model that nobody can wait for now."""
        with self._lock:
            ending = [caller for caller in self._unmapped if caller.model == model]
            self._unmapped = [caller for caller in self._unmapped if caller.model != model]
        ending += [caller for _, _, caller in self._queues.pop(model, [])]
        for caller in ending:
            if caller.future.set_running_or_notify_cancel():
                caller.future.set_exception(error)

    def forget_cancelled(self) -> None:
        """Forgets the callers that gave up."""
        for model, queue in self._queues.items():
            if any(caller.future.cancelled() for _, _, caller in queue):
                self._queues[model] = [entry for entry in queue if not entry[2].future.cancelled()]
                heapq.heapify(self._queues[model])


def _is_before(token: Token, watermark: Watermark) -> bool:
    """Returns whether the watermark shows a position without another snapshot.

    The writer read the position after its commit was visible. A snapshot that was taken after the insert LSN had passed
    the position was taken later than that.
    """
    if token.kind is not TokenKind.POSITION:
        return False
    token.require(watermark.identity)
    return watermark.floor_lsn > token.value


def _release(future: Future[Watermark], watermark: Watermark) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(watermark)
