"""Runs the lanes of an open read model, each on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from syncer.errors import Fatal
from syncer.pacing import Stopped
from syncer.pipeline.lane import Lane
from syncer.pipeline.order_lane import OrderLane
from syncer.ports import GroupSource, ReorderingSink
from syncer.runtime.lane_observer import LaneObserver
from syncer.session import ModelSession


class LaneThreads:
    """The lanes of one session. When one lane ends, the others end too: they share sinks and clock.

    observers: one for each lane, whose kind it names. Their order is that of the threads.
    """

    def __init__(self, session: ModelSession, observers: Sequence[LaneObserver]) -> None:
        self.ended = threading.Event()
        """Set when the first lane ends, or by `stop`."""
        self.members: dict[str, list[tuple[GroupSource, Lane]]] = {}
        """Kind of lane → the lanes of this kind, each with its source. Without order lanes."""
        self.order_lanes: list[tuple[ReorderingSink, OrderLane]] = []
        """Each with its sink."""
        self._errors: list[BaseException] = []
        self._first = session.names.changes[0], 0
        reordering = session.reordering()
        self._threads = []
        for observer in observers:
            if observer.lane == "order":
                lane: Lane | OrderLane = self._order_lane(session, reordering.pop(), observer)
            else:
                lane = self._lane(session, observer)
            name = f"{session.registration.model}-{observer.lane}"
            self._threads.append(threading.Thread(target=self._run, args=(lane,), name=name))

    def _lane(self, session: ModelSession, observer: LaneObserver) -> Lane:
        source = session.source(observer.lane, self.ended)
        lane = session.lane(source, observer, self.ended, items=observer.lane != "changes")
        self.members.setdefault(observer.lane, []).append((source, lane))
        return lane

    def _order_lane(self, session: ModelSession, sink: ReorderingSink, observer: LaneObserver) -> OrderLane:
        lane = session.order_lane(sink, observer, self.ended)
        self.order_lanes.append((sink, lane))
        return lane

    def is_leader(self) -> bool:
        """Returns whether Kafka chose this process for the tasks of which one process is enough.

        These tasks re-render all documents and publish the watermark. If the process dies, Kafka chooses another one.
        """
        return any(source.is_assigned(self._first) for source, _ in self.members.get("changes", ()))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Asks all lanes to end. `join` waits until they have."""
        self.ended.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def raise_error(self) -> None:
        """Raises the error of a lane that ended with one, a Fatal before others. Call it after `join`."""
        errors = [error for error in self._errors if not isinstance(error, Stopped)]
        errors.sort(key=lambda error: not isinstance(error, Fatal))
        if errors:
            raise errors[0]

    def _run(self, lane: Lane | OrderLane) -> None:
        try:
            lane.run()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self.ended.set()
