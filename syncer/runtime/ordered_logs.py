"""Reports how far the order lanes of this process have checked the logs of their sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from syncer.pipeline.order_lane import OrderLane
from syncer.ports import Partition, ReorderingSink, records_left


class OrderedLogs:
    """The logs of one session. Any thread may use it. lanes: each with its sink."""

    def __init__(self, lanes: Sequence[tuple[ReorderingSink, OrderLane]]) -> None:
        self._lanes = lanes

    def ends(self) -> dict[Partition, int]:
        """Returns the ends of the logs now. Empty if no sink needs an order lane. Raises Retry."""
        return {partition: end for sink, _ in self._lanes for partition, end in sink.log_ends().items()}

    def left(self, ends: Mapping[Partition, int]) -> int:
        """Returns how many writes before these ends are not checked. All other processes' partitions count."""
        checked = {partition: offset for _, lane in self._lanes for partition, offset in dict(lane.checked).items()}
        return records_left(ends, checked)
