"""Weaker rules of a documents topic and its order lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from syncer.pipeline.log_order import PartitionOrder, RecentVersions
from syncer.pipeline.order_lane import OrderLane
from syncer.pipeline.work_items import key_items, put_items
from syncer.ports import LogEntry
from tests.simulation.weaker.rule import Weaker


def _hands_nothing_over(self: OrderLane, late: Sequence[LogEntry]) -> None:
    """Ignores older versions that came last."""


def _whatever_is_last(self: RecentVersions, id: str, version: int) -> bool:
    """Counts a version as written although a lower one follows it."""
    return version <= self.highest(id)


def _never_durable(self: OrderLane, late: Sequence[LogEntry]) -> None:
    """Commits the entries although their items may still be in a buffer."""
    keys = list(dict.fromkeys(self._keys(late)))
    put_items(self.work, key_items(keys, self.limits.chunk_documents, "order"), self.wait)


_only_committed: Any = property(lambda order: order._next)


RULES = {
    "no order lane": Weaker(
        "an older version that was appended last stays",
        {(OrderLane, "_hand_over"): _hands_nothing_over},
        topic=True,
    ),
    "an order lane that begins where it committed": Weaker(
        "it does not know the newer version that was appended before",
        {(PartitionOrder, "begin"): _only_committed},
        topic=True,
        first=2_350,
    ),
    "an order lane that commits before its work is durable": Weaker(
        "nobody renders the document again",
        {(OrderLane, "_hand_over"): _never_durable},
        topic=True,
    ),
    "an order lane whose work is stale": Weaker(
        "on an idle database the new render has the version that is in the topic, and is left out",
        {(RecentVersions, "has"): _whatever_is_last},
        topic=True,
    ),
}
