"""Plays one case: its tables, the application's sessions, the lanes of the read model, and the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from threading import Event
from typing import Any, ClassVar

import psycopg
from prometheus_client import CollectorRegistry
from psycopg.rows import dict_row

from syncer.checks import Reader, check_model
from syncer.clock import Clock, Identity
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.model import parse, tables
from syncer.errors import Retry
from syncer.monitors.rerender import RESUMED, recent_roots
from syncer.pacing import Waiter
from syncer.pipeline.combine import combining
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import key_items, range_items
from syncer.ports import Sink
from syncer.postgres import catalog as rows_catalog
from syncer.postgres.fingerprint import Tables
from syncer.postgres.session import connect
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry.records import Proved
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.engine import changes, oracle
from tests.engine.application import OPTIONS, Session
from tests.engine.arbitrary import Case
from tests.engine.changes import Event as ChangeEvent
from tests.engine.schema import word
from tests.engine.statements import SESSIONS, Action, Transaction, Write
from tests.engine.world import FailingSink, FakeTime, Topics, WorkTopics
from tests.harness.engine import MemoryDeadLetters
from tests.harness.memory_sink import MemorySink, Store

PARTITIONS = 2
LIMITS = Limits(max_records=100, chunk_documents=2, fan_out=3, commit_interval=0.0, gate_timeout=1.0, max_age=5.0)
"""Small, so that a few rows are too much for one batch."""


class Play:
    """dsn: of a database for this test alone. Its slot exists (`changes.begin`).

    make_sink: makes the sink of a compiled read model. Without it, the documents are in memory.
    """

    letters: ClassVar[type[MemoryDeadLetters]] = MemoryDeadLetters

    def __init__(self, dsn: str, case: Case, make_sink: Callable[[Compiled], Sink] | None = None) -> None:
        self.dsn, self.case = dsn, case
        store = Store()
        self.make_sink = make_sink or (lambda model: MemorySink(model=model, store=store))
        self.admin = psycopg.connect(dsn, autocommit=True, options=OPTIONS)
        create = ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *case.sql()]
        self.admin.execute("; ".join(create).encode())
        self.sessions = [Session(dsn) for _ in range(SESSIONS + 1)]
        self.published: list[ChangeEvent] = []
        self.streamed_before = 0
        """All changes of the transactions before this one were published when `stream` was called last."""
        self.time = FakeTime()
        self.time.meanwhile = self.release_one
        self.changes, self.work, self.dead_letters = Topics(), WorkTopics(), self.letters()
        self.clock, self.observed = Clock(1), Metrics(CollectorRegistry()).for_model("model")
        self.model = parse(case.declaration, "model.yaml")
        self.rows: list[SnapshotReader] = []
        self.sinks: list[FailingSink] = []
        """All so far: a write of an earlier one can arrive late."""
        self.compile()

    # -- the application ------------------------------------------------------------------------------------

    def act(self, action: Action) -> None:
        if isinstance(action, Transaction):
            self._whole(action)
            return
        session = self.sessions[action.session]
        if session.late:
            return
        if isinstance(action, Write):
            session.begin()
            session.run(action.step)
        elif session.open:
            session.end(action.how, self.admin)

    def _whole(self, action: Transaction) -> None:
        """Runs a whole transaction in the last session.

        A truncate never commits late, because its lock blocks the lanes.
        """
        session = self.sessions[-1]
        if session.late:
            session.release(self.admin)
        session.begin()
        for step in action.steps:
            session.run(step)
        truncates = any(str(step).startswith("TRUNCATE") for step in action.steps)
        session.end("COMMIT" if truncates else action.how, self.admin)

    def commit_all(self) -> None:
        for session in self.sessions:
            if session.open and not session.late:
                session.end("COMMIT", self.admin)

    def release_one(self) -> None:
        """Makes one of the late commits visible. Called when a lane waits."""
        for session in self.sessions:
            if session.late:
                session.release(self.admin)
                return

    # -- Debezium -------------------------------------------------------------------------------------------

    def stream(self, *, inserts: bool = True) -> None:
        """Publishes the committed changes: one topic for each table, partitioned by key.

        inserts: whether those of inserted rows are among them.
        """
        used = {table.name for table in self.compiled.tables}
        xmin: Any = self.admin.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
        for change in changes.read(self.admin, self.case.schema):
            if change.table in used and (inserts or json.loads(change.value)["op"] != "c"):
                self.published.append(change)
                self._produce(change)
        self.streamed_before = int(xmin[0])

    def lose_inserts(self) -> None:
        """The connector resumes, and loses inserted rows. Then the documents of recent rows are rendered again."""
        xmin = self.streamed_before
        self.stream(inserts=False)
        while any(session.late for session in self.sessions):
            self.release_one()
        self._until_tables_fit(lambda: self._render_recent(xmin))

    def _render_recent(self, xmin: int) -> None:
        proved = Proved(Reader(1, None), *self.identity(), xmin)
        for roots in recent_roots(self.rows[1], self.compiled.rendered, proved, Waiter()):
            for item in key_items(roots, 2, RESUMED):
                self.work.put(item)

    def identity(self) -> Identity:
        with self.rows[1].view(root_only=True) as view:
            return view.head.identity

    def publish_again(self, count: int) -> None:
        """Publishes the last changes again, as Debezium does if it was killed before it stored its offset."""
        for change in self.published[-count:]:
            self._produce(change)

    def _produce(self, change: ChangeEvent) -> None:
        self.changes.add((change.table, sum(change.key.encode()) % PARTITIONS), change.value)

    # -- the syncer -----------------------------------------------------------------------------------------

    def compile(self) -> None:
        """Compiles the read model for the present tables, and starts at the committed offsets."""
        connection = connect({"conninfo": self.dsn})
        catalog, print_ = rows_catalog.load_stable(connection, tables(self.model))
        connection.close()
        self.compiled = compile(self.model, catalog)
        findings = check_model("model.yaml", self.compiled, catalog)
        assert not [finding for finding in findings if finding.severity == "error"], findings
        self.sink = self.failing(self.make_sink(self.compiled))
        self.sinks.append(self.sink)
        self.sink.prepare()
        for rows in self.rows:
            rows.close()
        self.rows = []
        for _ in range(2):
            arguments = {"conninfo": self.dsn}
            self.rows.append(SnapshotReader(arguments, self.compiled.rendered, tables=Tables(self.model.name, print_)))
        self.restart()

    def restart(self, *, lost: bool = False) -> None:
        """Starts new lanes at the committed offsets. A write of the old lanes is still under way, or lost."""
        if lost:
            self.time.held.clear()
        self.changes.close()
        self.work.close()
        self.lanes = [self._lane(self.changes, self.rows[0]), self._lane(self.work, self.rows[1])]

    @staticmethod
    def failing(sink: Sink) -> FailingSink:
        """Returns the sink with the faults that `DISTURBANCES` choose."""
        return FailingSink(sink)

    def _lane(self, source: Topics, rows: SnapshotReader) -> Lane:
        observer = LaneObserver("changes" if source is self.changes else "work", self.observed)
        return Lane(
            self.compiled.rendered,
            source,
            rows,
            combining([self.sink], self.compiled),
            clock=self.clock,
            work=self.work,
            limits=LIMITS,
            dead_letters=self.dead_letters,
            observer=observer,
            stop=Event(),
            time=self.time,
            partials=self.compiled.partials,
        )

    def follow(self, take: Iterable[tuple[int, int]] | None) -> None:
        """Publishes the committed changes, and processes one batch. take None: a batch of all records."""
        self.stream()
        self.step(self.lanes[0], self.everything if take is None else take)

    @property
    def everything(self) -> list[tuple[int, int]]:
        """A `take` that is larger than the topics."""
        return [(0, LIMITS.max_records)] * PARTITIONS * len(self.case.schema.tables)

    def step(self, lane: Lane, take: Iterable[tuple[int, int]]) -> None:
        """Processes one batch. Compiles again if the tables were altered; a truncate counts as that."""
        source: Any = lane.source
        source.take = take
        try:
            lane.step()
        except Retry:
            self.compile()
        finally:
            source.take = ()

    def backfill(self) -> None:
        self._until_tables_fit(self._plan_backfill)

    def _plan_backfill(self) -> None:
        for item in plan_durably(self.rows[1], lambda view: range_items(view, 2, "backfill"), Waiter()):
            self.work.put(item)

    def _until_tables_fit(self, act: Callable[[], None]) -> None:
        """Calls act. If the tables were altered, compiles again and repeats; TRUNCATE of a partition counts as that."""
        while True:
            try:
                return act()
            except Retry:
                self.compile()

    # -- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Processes all records, and finishes all writes.

        A late commit becomes visible when a lane waits for it. The others become visible at the end.
        """
        self.stream()
        while any(lane.source.waiting() or lane.writer.busy for lane in self.lanes):  # type: ignore[attr-defined]
            for lane in self.lanes:
                self.step(lane, self.everything)
        self.time.finish(len(self.time.held))
        for _ in self.sessions:
            self.release_one()

    def expected(self) -> dict[str, Any]:
        rows: oracle.Rows = {}
        with self.admin.transaction(), self.admin.cursor(row_factory=dict_row) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for table in self.case.schema.tables:
                found = cursor.execute(f"SELECT * FROM {word(table.name)}".encode()).fetchall()
                padded = [column.name for column in table.columns if column.type == "character(3)"]
                for row in found:
                    row |= {name: oracle.Padded(row[name]) for name in padded if row[name] is not None}
                rows[table.name] = found
        return oracle.documents(self.case.schema, self.case.tree, rows)

    def written(self) -> dict[str, Any]:
        found = self.sink.read(list(self.sink.ids()))
        return {id: json.loads(body, parse_float=exact(Decimal)) for id, body in found.items()}

    def refused(self) -> list[str]:
        """Returns the ids and positions of all dead letters."""
        return self.dead_letters.written

    def close(self) -> None:
        for session in self.sessions:
            if session.late:
                session.release(self.admin)
            session.close()
        for rows in self.rows:
            rows.close()
        for sink in self.sinks:
            sink.close()
        changes.read(self.admin, None)
        self.admin.close()


def exact(number: Callable[[str], Decimal]) -> Callable[[str], Any]:
    return lambda text: oracle.json(number(text))
