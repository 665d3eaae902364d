"""Weaker rules of refreshes (`freshness/refresh_queue.py`)."""

from __future__ import annotations

from collections.abc import Mapping

from syncer.events import Key
from syncer.freshness.refresh_queue import Batch, RefreshQueue, RefreshSource, Render
from syncer.freshness.snapshots import Observation
from syncer.freshness.tokens import Token
from syncer.ports import Record
from tests.simulation.database import Transaction
from tests.simulation.refreshes import Refreshes
from tests.simulation.weaker.rule import Weaker


def _awaits_nothing(self: Refreshes, transaction: Transaction, token: Token) -> None:
    """Renders at once."""


def _without_status(self: Refreshes, transaction: Transaction, token: Token) -> Observation:
    database = self.world.database
    return Observation(database.snapshot(), database.identity, database.inserted)


_complete, _poll = RefreshQueue.complete, RefreshSource.poll


def _completes_later_callers(self: RefreshQueue, batch: Batch, renders: Mapping[Key, Render]) -> None:
    """Gives the result of a batch to callers that arrived while it was rendered, too."""
    for key in batch:
        batch[key] += self._pending.pop(key, [])
    _complete(self, batch, renders)


def _completes_at_once(self: RefreshSource, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
    records = _poll(self, timeout, max_records, max_bytes)
    self.commit({("", 0): 0} if records else {}, wait=True)
    return records


RULES = {
    "a refresh without a token": Weaker(
        "the document is rendered before the caller's transaction is visible",
        {(Refreshes, "await_token"): _awaits_nothing},
        refreshes=True,
    ),
    "a refresh whose snapshot decides alone": Weaker(
        "a snapshot lists no subtransactions, so it seems to see one that is in progress",
        {(Refreshes, "observe"): _without_status},
        refreshes=True,
    ),
    "a refresh shares a render that has begun": Weaker(
        "the snapshot of that render does not see the transaction of the second caller",
        {(RefreshQueue, "complete"): _completes_later_callers},
        refreshes=True,
    ),
    "a refresh is done when it is sent": Weaker(
        "the sink has not acknowledged the document yet",
        {(RefreshSource, "poll"): _completes_at_once},
        refreshes=True,
    ),
}
