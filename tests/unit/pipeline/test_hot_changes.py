"""How many delayed items and renders the changes of a hot root cause: one item per batch, one render per interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Event

import orjson
import pytest
from prometheus_client import CollectorRegistry

from syncer.clock import Clock, Snapshot
from syncer.document import Row
from syncer.events import ChangeEvent, Key, Position, WorkItem
from syncer.pacing import Waiter
from syncer.pipeline import decode
from syncer.pipeline.delayed_items import DelayedItems
from syncer.pipeline.hot_roots import HotRoots
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Record
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.harness.memory_sink import MemorySink, Store
from tests.unit.pipeline.examples import MODEL
from tests.unit.pipeline.test_delayed_items import Source, Time
from tests.unit.pipeline.test_lane import EveryKey, Letters, NoRecords

INTERVAL = 2.0
CHANGES = 40


class Rows(EveryKey):
    """Counts the renders of each root."""

    def __init__(self) -> None:
        super().__init__()
        self.rendered: list[str] = []

    def render(self, keys: Sequence[Key], max_bytes: int = 0) -> list[Row]:
        self.rendered += [id for (id,) in keys]
        return super().render(keys, max_bytes)


class DelayedTopic:
    """`ports.WorkTopic` that the delayed lane reads."""

    topic = "delayed"

    def __init__(self, source: Source) -> None:
        self.source = source
        self.items: list[WorkItem] = []

    def put(self, item: WorkItem) -> None:
        self.items.append(item)
        self.source.append(decode.encode_item(item))

    def flush(self) -> None:
        """Items are durable at once."""


class Changes(NoRecords):
    """`ports.Source` with one batch of changes per poll."""

    def __init__(self) -> None:
        self.batches: list[list[Record]] = []
        self._count = 0

    def add(self, orders: Sequence[int], xid: int) -> None:
        """Adds a batch with one change of an item of each of these orders, in one transaction."""
        records = []
        for order in orders:
            source = {"schema": "public", "table": "items", "txId": xid, "ts_ms": 1000}
            image = {"order_id": order, "price": self._count}
            value = orjson.dumps({"op": "c", "source": source, "before": None, "after": image})
            records.append(Record(Position("shop.public.items", 0, self._count), None, value))
            self._count += 1
        self.batches.append(records)

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        return self.batches.pop(0) if self.batches else []


class HotLanes:
    """The lane of changes and the lane of delayed items, of one read model."""

    def __init__(self) -> None:
        self.time, self.source, self.changes, self.rows = Time(), Source(), Changes(), Rows()
        self.delayed = DelayedTopic(self.source)
        sink = MemorySink(model=MODEL, store=Store())
        sink.prepare()
        hot = HotRoots(INTERVAL)

        def lane(source: Changes | DelayedItems, hot: HotRoots | None) -> Lane:
            return Lane(
                MODEL,
                source,
                self.rows,
                [sink],
                clock=Clock(1),
                work=NoRecords(),
                dead_letters=Letters(),
                observer=LaneObserver("changes", Metrics(CollectorRegistry()).for_model("orders")),
                limits=Limits(),
                stop=Event(),
                items=("delayed",),
                hot=hot,
                delayed=self.delayed,
                time=self.time,
            )

        self._changes = lane(self.changes, hot)
        waiting = DelayedItems(self.source, Waiter(time=self.time), most_delay=INTERVAL)
        self._waiting = lane(waiting, None)

    def change(self, orders: Sequence[int]) -> None:
        """Lets the lane of changes take a batch."""
        xid = self.rows.head.snapshot.xmax
        self.changes.add(orders, xid)
        snapshot = Snapshot(xid + 1, xid + 1, frozenset())  # the last snapshot does not see the batch
        self.rows.head = self.rows.head._replace(snapshot=snapshot)
        self._changes.step()
        self._changes.step()  # finishes the write

    def wait(self, until: float) -> None:
        """Lets the lane of delayed items run."""
        while self.time.now < until:
            self._waiting.step()
            self.time.now += 0.1


def test_many_changes_in_one_batch_are_one_delayed_item() -> None:
    lanes = HotLanes()
    lanes.change([1])
    assert lanes.rows.rendered == ["1"] and lanes.delayed.items == []
    lanes.change([1] * CHANGES)
    assert lanes.rows.rendered == ["1"]
    assert [item.keys for item in lanes.delayed.items] == [(("1",),)]
    lanes.wait(lanes.time.now + 2 * INTERVAL)
    assert lanes.rows.rendered == ["1", "1"]


def test_many_hot_roots_of_one_batch_are_one_delayed_item() -> None:
    lanes = HotLanes()
    lanes.change([1, 2, 3])
    lanes.change([1, 2, 3] * CHANGES)
    assert [item.keys for item in lanes.delayed.items] == [(("1",), ("2",), ("3",))]


def test_many_batches_in_one_interval_are_one_render() -> None:
    lanes = HotLanes()
    began = lanes.time.now
    for number in range(CHANGES):
        lanes.time.now = began + number * INTERVAL / CHANGES
        lanes.change([1])
    assert lanes.rows.rendered == ["1"], "all others are delayed"
    assert len(lanes.delayed.items) == CHANGES - 1
    lanes.wait(began + 3 * INTERVAL)
    assert lanes.rows.rendered == ["1", "1"]


def one_item_per_change(
    whole: Callable[[Lane, list[ChangeEvent], Sequence[Record]], Iterator[WriteBatch]],
) -> Callable[[Lane, list[ChangeEvent], Sequence[Record]], Iterator[WriteBatch]]:
    """A weaker rule: each change is delayed alone."""

    def changes(lane: Lane, found: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        for change, record in zip(found, records, strict=True):
            yield from whole(lane, [change], [record])

    return changes


@pytest.mark.parametrize(
    "test", [test_many_changes_in_one_batch_are_one_delayed_item, test_many_hot_roots_of_one_batch_are_one_delayed_item]
)
def test_one_delayed_item_per_change_is_detected(test: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "_changes", one_item_per_change(Lane._changes))
    with pytest.raises(AssertionError):
        test()


def test_one_render_per_item_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weaker rule: the delayed lane forgets which items a render covers, and does not read ahead."""
    poll = Source.poll

    def one_record(self: Source, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        at = dict(self.at)
        found = poll(self, timeout, max_records, max_bytes)[:1]
        self.at = {partition: at[partition] + len(found) for partition in at}
        return found

    monkeypatch.setattr(Source, "poll", one_record)
    with pytest.raises(AssertionError):
        test_many_batches_in_one_interval_are_one_render()
