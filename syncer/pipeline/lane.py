"""Runs the stages of a batch, in order, for one read model over one source.

The package docstring (`pipeline/__init__.py`) lists the stages. `Lane.step` is one batch. Each stage returns what
happened, and the lane acts on it, so the order of effects can be read here from top to bottom.

Guarantees:

- An offset is committed only after every sink has acknowledged the documents of its record. A rejected document
  has a durable dead letter instead. Work that was handed over is durable in the work topic.
- At most one write is under way, while the lane prepares the next batch.
- The records of a batch that opens the circuit breaker get no dead letters, and their offsets are not committed.
- A lane that stops commits the finished work. The next lane repeats the rest.

`run` raises `Retry`, `Fatal` and `Stopped`. `runtime/supervisor.py` decides what happens then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from threading import Event

from syncer import document
from syncer.clock import Beginning, Clock
from syncer.declaration.compile import Compiled
from syncer.declaration.compiled import Partials
from syncer.errors import Fatal, Reject
from syncer.events import ChangeEvent, Position, TableName
from syncer.pacing import SystemTime, Waiter
from syncer.pipeline.accepted_partials import AcceptedPartials
from syncer.pipeline.change_stages import ChangeStages
from syncer.pipeline.circuit_breaker import CircuitBreaker
from syncer.pipeline.hot_roots import HotRoots
from syncer.pipeline.intake import Decoded, Intake
from syncer.pipeline.item_stages import ItemStages
from syncer.pipeline.lag import Lag
from syncer.pipeline.limits import Limits
from syncer.pipeline.offsets import Offsets, Partition
from syncer.pipeline.rejections import Rejections
from syncer.pipeline.render import Render
from syncer.pipeline.render_cache import RenderCache
from syncer.pipeline.route import Route
from syncer.pipeline.shared_topics import SharedTopics
from syncer.pipeline.visibility import VisibilityGate
from syncer.pipeline.write_batch import WriteBatch
from syncer.pipeline.writer import Writer, Written
from syncer.ports import DeadLetters, Observer, Record, Rows, Sink, Source, WorkTopic

_POLL = 0.25
"""Seconds to wait for the first record. A lane without records checks this often whether it is to stop."""


class Lane:
    """One read model over one source. Runs on the thread that calls `run`. A second thread waits for the sinks."""

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
        items: Collection[str] = (),
        hot: HotRoots | None = None,
        delayed: WorkTopic | None = None,
        beginning: Beginning | None = None,
        breaker: CircuitBreaker | None = None,
        topic_of: Callable[[TableName], str] = str,
        time: SystemTime | None = None,
        partials: Partials | None = None,
    ) -> None:
        """work: the work topic, to put items into. items: the other topics of work items.
        hot, delayed: see `ChangeStages`.
        beginning: of the read model. breaker: shared with the other lanes of the read model.
        topic_of: returns the topic of a table's changes. stop: set by another thread to end `run`.
        partials: of the documents, if `compiled` renders partials. The sinks then combine them."""
        self.source, self.observer, self.limits = source, observer, limits
        self.time = time or SystemTime()
        self.wait = Waiter(stop, self._heartbeat, self.time)
        self._columns = len(compiled.key)
        item_topics = {work.topic, *items}

        self.route = Route(compiled)
        shared_topics = SharedTopics(compiled.name, compiled.tables, topic_of)
        self.intake = Intake(self.route, shared_topics, item_topics, self._columns, roots=partials is not None)
        self.gate = VisibilityGate(compiled.name, rows, clock, limits=limits, wait=self.wait, observer=observer)
        self.rejections = Rejections(dead_letters, observer)
        self.accepted_partials = AcceptedPartials([sink.name for sink in sinks], self._columns)
        cache = RenderCache()
        self.render = Render(limits, gate=self.gate, cache=cache, wait=self.wait, observer=observer)
        self.changes = ChangeStages(
            compiled,
            self.route,
            self.render,
            cache=cache,
            gate=self.gate,
            work=work,
            hot=hot,
            delayed=delayed,
            limits=limits,
            beginning=beginning,
            wait=self.wait,
            observer=observer,
            partials=partials,
        )
        self.items = ItemStages(
            self._columns,
            self.render,
            gate=self.gate,
            source=source,
            sinks=sinks,
            work=work,
            rejections=self.rejections,
            limits=limits,
            wait=self.wait,
            partials=partials,
        )
        self.writer = Writer(compiled.name, sinks, limits=limits, wait=self.wait, observer=observer)
        self.breaker = breaker or CircuitBreaker(compiled.name)
        self.offsets = Offsets(limits.commit_interval)
        self.lag = Lag(beginning.now_ms if beginning else 0, item_topics)

    def run(self) -> None:
        """Runs until `Stopped`, or until an error that concerns more than one record.

        Commits the finished work in any case.
        """
        try:
            while True:
                self.wait.check()
                self.step()
        finally:
            try:
                self._close_write()
                self._commit(wait=True)
            finally:
                self.source.close()
                self.gate.rows.close()

    def step(self) -> None:
        """Prepares one batch and starts to write it. Without new records, waits for the write under way."""
        timeout = 0.0 if self.writer.busy else _POLL
        records = self.source.poll(timeout, self.limits.max_records, self.limits.max_bytes)
        if records:
            decoded = self._decode(records)
            self._items(decoded)
            if len(decoded.items) < len(records):  # changes, or records without any: their offsets move, too
                self._write_all(self._changes(decoded.changes, records), self._positions())
        else:
            self._finish_write()
            self.lag.idle(self.source.progress())
            self.offsets.idle(self._positions(), self.time.monotonic())
        self._commit_and_report(idle=not records)

    def _decode(self, records: Sequence[Record]) -> Decoded:
        """Stage 2. A record that cannot be read becomes a dead letter, unchanged."""
        with self.observer.stage("decode"):
            decoded = self.intake(records)
        self._reject_records(decoded)
        if decoded.unknown:
            changes = [change for _, change in decoded.unknown]
            self._polled(decoded.unknown[-1][0].position, min(change.committed_ms for change in changes))
            with self.gate.open_view({change.txid for change in changes if change.txid is not None}) as view:
                self.intake.ask_catalog(view.view, decoded)
            self._reject_records(decoded)
        return decoded

    def _reject_records(self, decoded: Decoded) -> None:
        for record, error in decoded.rejected:
            self.rejections.record(record, error)
        decoded.rejected = []

    def _items(self, decoded: Decoded) -> None:
        """Stages 4 to 9 for each work item. An item is large enough to be committed alone."""
        if not decoded.items:
            return
        now_ms = self.time.now_ms()
        for record, item in decoded.items:
            self.lag.polled(record.position, 0 if item.not_before_ms > now_ms else item.committed_ms)
        self._report_lag()
        for record, item in decoded.items:
            self._write_all(self.items(item, record))
            self._commit_and_report()

    def _changes(self, changes: list[ChangeEvent], records: Sequence[Record]) -> Iterator[WriteBatch]:
        """Stages 3 to 6 of a batch of changes."""
        routed = self.changes.route(changes)
        self.observer.events(Counter(change.op for change in changes), routed.skipped)
        committed_ms = changes[-1].committed_ms if changes else 0
        if not routed.dirty:
            yield WriteBatch.empty(self.time.monotonic(), records, committed_ms)
            return
        self._polled(records[-1].position, routed.oldest_ms)
        yield from self.changes.render(routed, records, committed_ms)

    # -- stage 7, write: one write is under way while the next batch is prepared ------------------------

    def _write_all(self, batches: Iterable[WriteBatch], positions: Mapping[Partition, int] | None = None) -> None:
        """Writes the batches. positions: those that are reached with the batch that carries the records."""
        for batch in batches:
            self._write(replace(batch, positions=positions) if positions and batch.records else batch)

    def _positions(self) -> dict[Partition, int]:
        """Returns the next offset to poll of each partition. All records before it have been polled."""
        return {partition: position for partition, (position, _) in self.source.progress().items()}

    def _write(self, batch: WriteBatch) -> None:
        """Starts to write a batch, after the batch before it is acknowledged.

        While the circuit breaker is open, one document goes alone first.
        """
        self._reject_documents(batch)
        self._finish_write()
        if (id := self.breaker.probe(batch.documents)) is not None:
            probe, batch = batch.split(id)
            self.writer.start(probe)
            self._finish_write()
        if batch.documents:
            self.writer.start(batch)
        else:
            self._acknowledge(batch)

    def _finish_write(self) -> None:
        """Waits until every sink has acknowledged the batch under way.

        Documents that a sink did not write are rendered again, with a back-off, until none is left. They are written
        to that sink only: the others have acknowledged them. Raises the Fatal of a sink or of the circuit breaker,
        and Stopped when the lane is to stop while documents are left.
        """
        written = self.writer.finish()
        if written is None:
            return
        retry = self._handle(written)
        back_off = self.wait.back_off(0.05, 5.0)
        while retry:
            back_off()
            retry = self._write_again(retry)
        self.observer.waiting("")
        self._acknowledge(written.batch)

    def _write_again(self, retry: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Renders documents again as they are now, and writes them.

        retry: the ids that each sink has left to write. Returns what is left after this time.
        """
        ids = dict.fromkeys(chain.from_iterable(retry.values()))
        left: dict[str, list[str]] = {}
        for batch in self.render.keys([document.parse_id(id, self._columns) for id in ids], for_all=False):
            self._reject_documents(batch)
            for sink, still in self._handle(self.writer.write(batch, retry.keys())).items():
                left.setdefault(sink, []).extend(still)
        return left

    def _handle(self, written: Written) -> dict[str, list[str]]:
        """Acts on the answers of the sinks. Returns the ids of the documents to be rendered again, by sink.

        Raises the Fatal of the circuit breaker before it acts on any answer. Then the batch gets no dead letters and
        stays unacknowledged.
        """
        version = written.batch.documents.version
        for sink, outcome in written.outcomes:
            self.breaker.judge(sink, written.batch.documents, outcome)
        for sink, outcome in written.outcomes:
            for id, reason, *_ in outcome.rejected:
                self.rejections.document(
                    id, version, Reject(f"{sink} refused the document", where=f"document {id}", why=reason)
                )
            self.accepted_partials.add(sink, outcome.shown)
            self.gate.require(outcome.newest_version)
            if outcome.retry:
                self.observer.waiting(outcome.retry_reason)
        return written.retry

    def _reject_documents(self, batch: WriteBatch) -> None:
        """A document that PostgreSQL cannot render becomes a dead letter."""
        for id, error in batch.rejected:
            self.rejections.document(id, batch.documents.version, error)

    def _acknowledge(self, batch: WriteBatch) -> None:
        """Every sink has acknowledged this batch and all batches before it."""
        self.rejections.acknowledged(batch.documents, self.accepted_partials.take())
        self.offsets.acknowledged(batch.reached(), self.time.monotonic())
        for record in batch.records:
            self.lag.acknowledged(record.position, batch.committed_ms)

    def _close_write(self) -> None:
        """Waits for the write under way. Does not retry: the next lane repeats a batch that failed."""
        with suppress(Fatal):  # of the circuit breaker
            written = self.writer.close()
            if written is not None and not self._handle(written):
                self._acknowledge(written.batch)

    # -- stages 8 and 9, commit and lag -----------------------------------------------------------------

    def _commit_and_report(self, *, idle: bool = False) -> None:
        """Commits when the interval has passed, and reports the lag. idle: see `Offsets.due`."""
        if self.offsets.due(self.time.monotonic(), idle=idle):
            self._commit(wait=False)
        self._report_lag()

    def _commit(self, *, wait: bool) -> None:
        """Stage 8. Dead letters are durable before the offsets of their records are committed."""
        with self.observer.stage("commit"):
            self.rejections.flush()
            self.source.commit(self.offsets.take(), wait=wait)

    def _polled(self, last: Position, oldest_ms: int) -> None:
        """Reports the age of polled changes before the gate, because a batch may wait there for long."""
        self.lag.polled(last, oldest_ms)
        self._report_lag()

    def _report_lag(self) -> None:
        """Stage 9."""
        now_ms = self.time.now_ms()
        self.lag.update(self.source.progress(), now_ms)
        self.observer.lag(self.lag.records, self.lag.seconds(now_ms))

    def _heartbeat(self) -> None:
        """Keeps the lane in its consumer group during long work, and reports how the lag grows."""
        self.source.heartbeat()
        self._report_lag()
