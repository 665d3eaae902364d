"""Reads a topic and appends its records to a table, until it is stopped or has caught up.

A record is held in memory until enough of them are there for one commit. A commit is one or a few Parquet files, so
small commits make many small files. A process that dies loses only what it held: the table knows where to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Event

from syncer.errors import Fatal, Retry
from syncer.export.appender import Appender, Rewound, Table
from syncer.export.pending import Gap, Pending
from syncer.ports import DocumentReader, DocumentTopic, TopicState

MAX_BYTES = 128 << 20
"""Of documents that are held in memory. A commit is made earlier if they are reached."""
_POLL = 0.2  # seconds
_CHECK = 5.0
"""Seconds after which the topic is checked again, if no commit did that. The lag is as old as the last check."""


@dataclass(frozen=True)
class Batching:
    """When a commit is made: at this number of rows, or this time after the first one was read."""

    rows: int
    seconds: float


@dataclass
class Progress:
    """What one run has done, and how far behind the table is."""

    rows: int = 0
    """Appended by this run."""
    commits: int = 0
    conflicts: int = 0
    """Commits that another process preceded. They were repeated."""
    gaps: int = 0
    """Skipped gaps."""
    held: int = 0
    """Records in memory."""
    lag_records: int = 0
    """Records of the topic that are not in the table."""
    lag_seconds: float = 0.0
    """Age of the oldest of them that was read. 0 if there is none."""
    records: int = 0
    """Records of the topic."""
    note: str = ""
    """An event to report, such as a gap that was skipped. Empty most of the time."""


class Exporter:
    """One run. For one thread.

    batching: when commits are made. skip_gaps: whether missing offsets are reported and passed over, not an error.
    stop: ends the run; what is held is committed. report: called after each poll.
    """

    def __init__(
        self,
        topic: DocumentTopic,
        open_table: Callable[[str], Table],
        batching: Batching,
        *,
        stop: Event,
        report: Callable[[Progress], None],
        skip_gaps: bool = False,
    ) -> None:
        self._topic, self._open_table, self._batching = topic, open_table, batching
        self._stop, self._report, self._skip_gaps = stop, report, skip_gaps
        self.progress = Progress()
        self._held_since = 0.0
        self._checked = 0.0

    def run(self, *, until_caught_up: bool = False) -> Progress:
        """Exports until it is stopped, or until the table has all records that the topic had at the start.

        Raises Fatal if the topic or the table is not usable, Retry if a server is unreachable.
        """
        state = self._state("", {})
        table = self._open_table(state.id)
        table.load()
        pending = Pending(dict.fromkeys(state.begins, 0) | table.next_offsets(state.begins))
        state = self._state(state.id, pending.next)  # again: the table may be newer than the first answer
        self._gaps(pending.passed(state.begins))
        appender = Appender(table, self._conflict)
        reader = self._topic.reader(pending.next)
        try:
            self._follow(reader, pending, appender, state, state.ends if until_caught_up else None)
        except Rewound as error:
            raise Retry("the table has fewer records than before", where=self._topic.name, why=str(error)) from error
        finally:
            reader.close()
        return self.progress

    def _follow(
        self,
        reader: DocumentReader,
        pending: Pending,
        appender: Appender,
        state: TopicState,
        goal: Mapping[int, int] | None,
    ) -> None:
        ending = False
        while not ending:
            writes = reader.poll(_POLL)
            while writes:
                if not pending:
                    self._held_since = time.monotonic()
                room = max(1, self._batching.rows - len(pending))
                self._gaps(pending.add(writes[:room]))
                del writes[:room]
                if writes and self._full(pending):
                    state = self._commit(pending, appender, state)
            self._gaps(pending.passed(reader.next))
            ending = self._stop.is_set() or (goal is not None and _reached(pending.next, goal))
            if pending and (ending or self._full(pending)):
                state = self._commit(pending, appender, state)
            elif time.monotonic() - self._checked > _CHECK:
                state = self._state(state.id, pending.next)
            self._measure(pending, state)

    def _commit(self, pending: Pending, appender: Appender, state: TopicState) -> TopicState:
        """Appends what is pending. Returns the topic as it was just before: the records were read from this one."""
        state = self._state(state.id, pending.next)
        self.progress.rows += appender.append(pending)
        self.progress.commits += 1
        self._measure(pending, state)
        return state

    def _full(self, pending: Pending) -> bool:
        return (
            len(pending) >= self._batching.rows
            or pending.bytes >= MAX_BYTES
            or time.monotonic() - self._held_since >= self._batching.seconds
        )

    def _state(self, known: str, next_offsets: Mapping[int, int]) -> TopicState:
        """Returns the topic as it is now. Raises Fatal if it can lose records, or lost its last ones.

        Raises Retry if it is another topic than before, or has other partitions: the next run reads those, too.

        known: its id at the start. The offsets that were read since then belong to that topic. Empty at the start.
        next_offsets: partition → the offset after the last record that was exported or read.
        """
        state, self._checked = self._topic.state(), time.monotonic()
        if known not in ("", state.id):
            raise Retry("the topic was deleted and created again", where=self._topic.name)
        if not state.begins:  # a broker that just started may not know the topic yet
            hint = "check that Kafka is up and kafka.bootstrap_servers is correct"
            raise Retry(
                "the topic exists, but a broker does not list its partitions", where=self._topic.name, hint=hint
            )
        if known and state.begins.keys() != next_offsets.keys():
            raise Retry(
                "the number of partitions of the topic has changed",
                where=self._topic.name,
                why=f"it was {len(next_offsets)}, and is {len(state.begins)}",
                hint="start the export again to read all of them; without --until-caught-up, it does this itself",
            )
        check_topic(self._topic.name, state, next_offsets)
        return state

    def _gaps(self, gaps: Iterable[Gap]) -> None:
        """Reports gaps, or raises Fatal for the first one."""
        for gap in gaps:
            if not self._skip_gaps:
                raise Fatal(
                    "records are missing in the topic, so they cannot be exported",
                    where=self._topic.name,
                    why=f"{gap}: deleted, compacted earlier, or written in a transaction by another program",
                    hint="add --skip-gaps to continue after them; "
                    "then run `syncer resync`, which writes the newest version of every document",
                )
            self.progress.gaps += 1
            self._note(f"skipped missing records: {gap}")

    def _conflict(self) -> None:
        self.progress.conflicts += 1
        self._note("another process committed to the table; the commit is repeated (one export is enough)")

    def _note(self, text: str) -> None:
        self.progress.note = text
        self._report(self.progress)
        self.progress.note = ""

    def _measure(self, pending: Pending, state: TopicState) -> None:
        now = self.progress
        ends = {number: max(end, pending.next[number]) for number, end in state.ends.items() if number in pending.next}
        now.held = len(pending)
        now.records = sum(end - state.begins[number] for number, end in ends.items())
        now.lag_records = sum(end - pending.position(number) for number, end in ends.items())
        oldest = pending.oldest_ms()
        now.lag_seconds = max(0.0, time.time() - oldest / 1000) if oldest is not None else 0.0
        self._report(now)


def check_topic(name: str, state: TopicState, next_offsets: Mapping[int, int]) -> None:
    """Raises Fatal if the topic can lose records, or ends before one of these offsets.

    name: for the error. next_offsets: partition → the offset after the last record that was exported or read. They
    have to be older than `state`.
    """
    if state.lossy:
        raise Fatal(
            "the topic removes records, so not every version can be exported",
            where=name,
            why=state.lossy,
            hint="set cleanup_policy: delete in the Kafka sink of the read model; for an existing topic, "
            "`syncer check` then prints the command that changes it",
        )
    for number, offset in sorted(next_offsets.items()):
        if (end := state.ends.get(number, offset)) < offset:
            raise Fatal(
                "the topic lost records that were exported already, so later records would be skipped",
                where=name,
                why=f"partition {number} ends at offset {end}, and the export had read it up to offset {offset}",
                hint="export to another path; `syncer resync` writes the newest version of every document",
            )


def _reached(position: Mapping[int, int], goal: Mapping[int, int]) -> bool:
    return all(position[number] >= end for number, end in goal.items())
