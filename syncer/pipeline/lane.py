"""The life of one batch, in order. Start reading here.

    1 poll      records from the source, as many as are there         sources/
    2 decode    bytes → change events, work items                     pipeline/decode.py
    3 route     which places of the tree does each change touch?      pipeline/route.py
    4 resolve   touched places → dirty roots                          pipeline/resolve.py, pipeline/render_cache.py
    5 gate      a snapshot that sees every transaction of the batch   pipeline/visibility.py, clock.py
    6 render    dirty roots → documents, in that snapshot             pipeline/render.py, rows/
    7 write     documents → every sink, with the snapshot's version   pipeline/writer.py, sinks/
    8 commit    the offsets of what every sink has acknowledged       pipeline/offsets.py
    9 lag       what is left                                          pipeline/lag.py

A `Lane` runs this for one read model over one source. A read model has a lane for its changes and others
for its work topic, where everything goes that is too large for one batch (`pipeline/work_items.py`); so neither waits
for the other.

`Retry`, `Fatal` and `Stopped` leave `run` (`runtime/supervisor.py` says what happens then). Only what every sink has
acknowledged is ever committed, so whoever goes on repeats at most what was under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from syncer import document
from syncer.clock import Beginning, Clock, Snapshot
from syncer.declaration.compile import Compiled
from syncer.document import Batch
from syncer.errors import Fatal, Reject
from syncer.events import ChangeEvent, Key, TableName, WorkItem
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline import decode
from syncer.pipeline.circuit_breaker import Breaker
from syncer.pipeline.lag import Lag
from syncer.pipeline.neighbours import Neighbours
from syncer.pipeline.offsets import Offsets
from syncer.pipeline.render import Render
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.resolve import Dirty, Resolve
from syncer.pipeline.route import Route
from syncer.pipeline.visibility import VersionedView, VisibilityGate, plan_durably
from syncer.pipeline.work_items import key_items, range_items, sweep_items
from syncer.pipeline.writer import WriteBatch, Writer
from syncer.ports import DeadLetters, InspectableSink, Observer, Record, Rows, Sink, Source, View, WorkTopic


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a lane's memory and patience; `config/schema.py` describes each."""

    max_records: int = 5000
    max_bytes: int = 16 << 20
    chunk_documents: int = 2000
    chunk_bytes: int = 8 << 20
    fan_out: int = 20_000
    commit_interval: float = 1.0
    gate_timeout: float = 30.0
    max_age: float = 30.0


_POLL = 0.25  # seconds to wait for the first record: how soon a lane notices that it is told to stop


class Lane:
    """One read model over one source, on the thread that calls `run` (and one that waits for the sinks)."""

    def __init__(
        self,
        compiled: Compiled,
        source: Source,
        rows: Rows,
        sinks: Sequence[Sink],
        *,
        clock: Clock,
        work: WorkTopic,
        dead_letters: DeadLetters,
        observer: Observer,
        limits: Limits,
        stop: Event,
        items: str = "",
        beginning: Beginning | None = None,
        breaker: Breaker | None = None,
        topic_of: Callable[[TableName], str] = str,
        time: SystemTime | None = None,
    ) -> None:
        """items: a topic of work items besides `work`, if that is what the source gives. beginning: of the
        read model. breaker: shared with its other lanes. topic_of: the topic of a table's changes."""
        self.compiled, self.source, self.sinks = compiled, source, sinks
        self.work, self.dead_letters, self.observer = work, dead_letters, observer
        self.limits, self.beginning, self.time = limits, beginning, time or SystemTime()
        self.wait = Waiter(stop, self._heartbeat, self.time)
        self.route, self.resolve = Route(compiled), Resolve(compiled)
        self.neighbours = Neighbours(compiled.name, compiled.tables, topic_of)
        self.gate = VisibilityGate(compiled.name, rows, clock, self.wait, observer, limits.gate_timeout)
        self.writer = Writer(
            compiled.name,
            sinks,
            max_age=limits.max_age,
            again=self._again,
            done=self._done,
            refused=self._refused,
            newer=self._newer,
            wait=self.wait,
            observer=observer,
            breaker=breaker or Breaker(compiled.name),
        )
        self._item_topics = {work.topic, items}
        self.offsets = Offsets(limits.commit_interval)
        self.lag = Lag(beginning.now_ms if beginning else 0, self._item_topics)
        self.recent = RenderCache()
        self._handed_out: Snapshot | None = None
        """After which all roots were handed out, because of updates without their old rows."""
        self.render = Render(
            limits.chunk_documents,
            limits.chunk_bytes,
            recent=self.recent,
            wait=self.wait,
            observer=observer,
            spoilt=self._dead_letter,
        )
        self._rejected: set[str] = set()  # documents, since the last piece was done
        self._due = 0.0

    def run(self) -> None:
        """Until `Stopped`, or an error that is not of one record. Commits what is done in any case."""
        try:
            while True:
                self.wait.check()
                self.step()
        finally:
            try:
                self.writer.close()
                self._commit(wait=True)
            finally:
                self.source.close()
                self.gate.rows.close()

    def step(self) -> None:
        """One batch; or, if there is none, the rest of the last one."""
        timeout = 0.0 if self.writer.busy else _POLL
        records = self.source.poll(timeout, self.limits.max_records, self.limits.max_bytes)
        if records:
            changes, items = self._decode(records)
            if items:
                now_ms = self.time.now_ms()
                for record, item in items:
                    self.lag.taken(record.position, 0 if item.not_before_ms > now_ms else item.committed_ms)
                self._tell_lag()
            for record, item in items:  # a lane has either; each item is large enough to be settled alone
                self._item(item, record)
                self._tell()
            if len(items) < len(records):  # changes, or what could not be read: that is settled, too
                self._changes(changes, records)
        else:
            self.writer.settle()
            self.lag.idle(self.source.progress())
        self._tell()

    def _tell(self) -> None:
        """Stages 8 and 9: commit now and then what is done, and tell what is left."""
        if self.offsets.due(self.time.monotonic()):
            self._commit(wait=False)
        self._tell_lag()

    def _heartbeat(self) -> None:
        """While busy or waiting: stay in the group, and let the lag be seen to grow."""
        self.source.heartbeat()
        self._tell_lag()

    def _tell_lag(self) -> None:
        """Stage 9."""
        now_ms = self.time.now_ms()
        self.lag.waiting(self.source.progress(), now_ms)
        self.observer.lag(self.lag.records, self.lag.seconds(now_ms))

    def _decode(self, records: list[Record]) -> tuple[list[ChangeEvent], list[tuple[Record, WorkItem]]]:
        """Stage 2. What cannot be read goes to the dead letters, as it is."""
        changes: list[ChangeEvent] = []
        items: list[tuple[Record, WorkItem]] = []
        doubtful: list[tuple[Record, ChangeEvent]] = []
        with self.observer.stage("decode"):
            for record in records:
                try:
                    if record.position.topic in self._item_topics:
                        item = decode.work(record.position, record.value, len(self.compiled.key))
                        if item is not None:
                            items.append((record, item))
                        continue
                    change = decode.change(record.position, record.value)
                    if change is None:
                        continue
                    if self.route.knows(change.table) or self.neighbours.knows(change.table):
                        changes.append(change)
                    elif self.neighbours.fits(change.table, record.position.topic):
                        doubtful.append((record, change))
                    else:
                        raise self.neighbours.refused(record, change.table)
                except Reject as error:
                    self._letter(record, error)
        return changes + self._judged(doubtful), items

    def _judged(self, doubtful: list[tuple[Record, ChangeEvent]]) -> list[ChangeEvent]:
        """The changes of tables that only share a topic with the read model. Others are dead letters."""
        if not doubtful:
            return []
        oldest_ms = min(change.committed_ms for _, change in doubtful)
        self.lag.taken(doubtful[-1][0].position, oldest_ms)  # the gate may wait for long
        self._tell_lag()
        with self.gate.open_view({change.txid for _, change in doubtful if change.txid is not None}) as seen:
            why = self.neighbours.learn(seen.view, {change.table for _, change in doubtful})
        for record, change in doubtful:
            if change.table in why:
                self._letter(record, self.neighbours.refused(record, change.table, why[change.table]))
        return [change for _, change in doubtful if change.table not in why]

    def _letter(self, record: Record, error: Reject) -> None:
        self.dead_letters.record(record, error.detail)
        self.observer.rejected(error)

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> None:
        """Stages 3 to 7 of a batch of changes."""
        dirty, xids, skipped, oldest_ms = Dirty(), set[int](), 0, 0
        with self.observer.stage("route"):
            for change in changes:
                places = self.route(change)
                if places:
                    try:
                        self.resolve(change, places, dirty)
                    except Fatal:  # e.g. a column had another name then; what came of it is backfilled
                        if not self._covered(change):
                            raise
                        skipped += 1
                        continue
                    if change.txid is not None:
                        xids.add(change.txid)
                    if not oldest_ms or change.committed_ms < oldest_ms:
                        oldest_ms = change.committed_ms
                    if self.resolve.untold(change) and not self._covered(change):
                        dirty.untold.add(change.txid)
                else:
                    skipped += 1
        self.observer.events(Counter(change.op for change in changes), skipped)
        committed_ms = changes[-1].committed_ms if changes else 0
        if not dirty:
            self.writer.send(WriteBatch(document.NOTHING, self.time.monotonic(), records, committed_ms))
            return
        self.lag.taken(records[-1].position, oldest_ms)
        self._tell_lag()
        with self._sight(xids) as seen:
            with self.observer.stage("resolve"):
                keys = self._look_up(seen.view, dirty, oldest_ms)
            # Who asks the connector for a snapshot wants its rows looked at, whatever was rendered lately.
            asked = any(change.op == "r" for change in changes)
            stale = keys if asked else self.recent.stale(keys, xids, seen.view.head.snapshot)
            self.observer.dirty(len(keys), len(keys) - len(stale))
            batch, left = self.render(seen, stale)
        self._all(dirty, seen.view.head.snapshot, oldest_ms)
        self._send(seen, batch, left, records, committed_ms)
        self._keys(left, records, committed_ms)

    @contextmanager
    def _sight(self, xids: Collection[int]) -> Iterator[VersionedView]:
        """For look-ups. What cannot be rendered is a dead letter; a value that cannot be looked up is not one
        document's trouble, as no root is known."""
        try:
            with self.gate.open_view(xids) as seen:
                yield seen
        except Reject as error:
            raise Fatal(
                "a value of a change event does not fit the type of its column",
                where=error.where,
                why=error.why,
                hint=f"if the type was altered: syncer resync {self.compiled.name}; otherwise: syncer check",
            ) from error

    def _covered(self, change: ChangeEvent) -> bool:
        """Whether a change was committed before the read model began."""
        if self.beginning is None or change.txid is None or change.op == "r":
            return False
        return self.beginning.covers(change.txid, change.committed_ms)

    def _look_up(self, view: View, dirty: Dirty, oldest_ms: int = 0) -> list[Key]:
        """Stage 4: all dirty roots. What is too much for one batch goes to the work topic, with the commit
        time of the batch's oldest change."""
        keys: dict[Key, None] = {}
        handed_over = False
        for lookup, values in dirty.lookups.items():
            for key in view.look_up(lookup, values):
                keys[key] = None
                if len(keys) >= self.limits.fan_out:
                    self._put(key_items(keys, self.limits.chunk_documents, "fan-out", oldest_ms))
                    keys, handed_over = {}, True
        if handed_over:
            self.work.flush()
        return list(dirty.keys | keys)

    def _all(self, dirty: Dirty, seen: Snapshot, oldest_ms: int) -> None:
        """A truncate names no keys, and an update without its old row does not name the root that the row
        left. So all roots or all documents go to the work topic, before the batch is settled. They are
        rendered in later snapshots than `seen`. So updates that this one sees need not hand them out again.
        """
        known = self._handed_out
        untold = any(xid is None or known is None or not known.sees(seen.widen(xid)) for xid in dirty.untold)
        reason = "identity" if untold else "truncate"
        if dirty.all_roots or untold:
            size = self.limits.chunk_documents

            def plan(view: View) -> Iterator[WorkItem]:
                return range_items(view, size, reason, committed_ms=oldest_ms)

            self._put(plan_durably(self.gate.rows, plan, self.wait))
            self.observer.refresh(reason)
        if dirty.root_gone:
            self._put(sweep_items("truncate", self.time.now_ms(), self.limits.max_age, oldest_ms))
        if dirty.all_roots or dirty.root_gone or untold:
            self.work.flush()
        if untold:
            self._handed_out = seen

    def _put(self, items: Iterable[WorkItem]) -> None:
        for item in items:
            self.work.put(item)
            self.wait.tick()

    def _item(self, item: WorkItem, record: Record) -> None:
        """Stages 3 to 7 of a work item."""
        records = (record,)
        self.wait(self._due - self.time.monotonic())
        if item.not_before_ms > self.time.now_ms():  # to the end of the queue, so that others need not wait
            self.wait(min((item.not_before_ms - self.time.now_ms()) / 1000, 0.5))
            self.work.put(item)
            self.work.flush()
            self.writer.send(WriteBatch(document.NOTHING, self.time.monotonic(), records))
            return
        self._due = self.time.monotonic() + item.seconds / max(1, len(self.source.progress()))
        if item.kind == "keys":
            self._keys(list(dict.fromkeys(item.keys)), records)
        elif item.kind == "range" and item.high is not None:
            with self.gate.open_view() as seen:
                batch, left = self.render.between(seen, item.low, item.high)
            self._send(seen, batch, left, records)
            self._keys(left, records)
        else:
            # Later items wait behind those that a sweep hands over, so these count from when it began.
            since_ms = item.committed_ms or self.time.now_ms()
            for sink in self.sinks:
                if item.sink in ("", sink.name):
                    keys = self._keys_of(sink, item.since)
                    self._put(key_items(keys, self.limits.chunk_documents, item.reason, since_ms))
            self.work.flush()
            self.writer.send(WriteBatch(document.NOTHING, self.time.monotonic(), records))

    def _keys_of(self, sink: InspectableSink, since: str) -> Iterator[Key]:
        """The keys of all documents that a sink holds, or of those that were written since."""
        for id in sink.ids(since):
            try:
                yield document.parse_id(id, len(self.compiled.key))
            except ValueError as error:
                foreign = Reject("a document that is none of ours", where=sink.name, why=str(error))
                self._dead_letter(id, 0, foreign)

    def _keys(self, keys: list[Key], records: Sequence[Record], committed_ms: int = 0) -> None:
        """Stages 5 to 7 for known roots, a piece at a time, each in a snapshot of its own."""
        while keys:
            self.wait.tick()
            with self.gate.open_view() as seen:
                batch, keys = self.render(seen, keys)
            self._send(seen, batch, keys, records, committed_ms)

    def _send(
        self,
        seen: VersionedView,
        batch: Batch,
        left: list[Key],
        records: Sequence[Record],
        committed_ms: int = 0,
    ) -> None:
        """Stage 7. left: roots that come in a later piece, which settles the records then."""
        self.writer.send(WriteBatch(batch, seen.snapshot_at, () if left else records, committed_ms))

    def _again(self, ids: list[str]) -> Iterator[WriteBatch]:
        """For the writer: the same documents as they are now."""
        left = [document.parse_id(id, len(self.compiled.key)) for id in ids]
        while left:
            with self.gate.open_view() as seen:
                batch, left = self.render(seen, left)
            yield WriteBatch(batch, seen.snapshot_at)

    def _refused(self, sink: str, id: str, version: int, reason: str) -> None:
        self._dead_letter(id, version, Reject(f"{sink} refused the document", where=f"document {id}", why=reason))

    def _newer(self, version: int) -> None:
        self.gate.ahead = max(self.gate.ahead, version)

    def _dead_letter(self, id: str, version: int, error: Reject) -> None:
        self.dead_letters.document(id, version, error.detail)
        if id not in self._rejected:  # told once a piece, however often another sink makes it render again
            self._rejected.add(id)
            self.observer.rejected(error)

    def _done(self, piece: WriteBatch) -> None:
        """Every sink has acknowledged the piece and all before it. What was refused of it, or when it was
        rendered again, is not what they have accepted."""
        accepted = (id for id in piece.batch.ids() if id not in self._rejected)
        self.dead_letters.accepted(accepted, piece.batch.version)
        self._rejected.clear()
        self.offsets.done((record.position for record in piece.records), self.time.monotonic())
        for record in piece.records:
            self.lag.settled(record.position, piece.committed_ms)

    def _commit(self, *, wait: bool) -> None:
        """Stage 8."""
        with self.observer.stage("commit"):
            self.dead_letters.flush()
            self.source.commit(self.offsets.take(), wait=wait)
