"""Reads from Kafka how far the pipeline is with one document, for `syncer trace`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from syncer.clock import Beginning
from syncer.kafka.names import topic_of
from syncer.monitors.wait_status import combine_reports
from syncer.operations.trace.changes import Changes, FoundChange
from syncer.operations.trace.pending import pending
from syncer.operations.trace.report import Progress, Report, TracedChange
from syncer.operations.trace.root import TracedRoot
from syncer.operations.trace.topics import ChangeTopics
from syncer.pacing import SystemTime
from syncer.ports import DeadLetter, Partition, Subject
from syncer.registry.records import Registration
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot


class TracedPipeline:
    """Each call of `add` reads only what is new in the change topics.

    since, most, progress: see `ChangeTopics`.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        since: float,
        most: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self._registry, self._time = registry, SystemTime()
        self._since, self._most, self._progress = since, most, progress
        self._generation = 0
        self._topics: ChangeTopics | None = None
        self._changes: Changes | None = None
        self._letters_end = -1
        self._letters: Sequence[DeadLetter] = ()

    def add_reports(self, report: Report, values: StateSnapshot, known: Registration) -> Report:
        """Adds the reports of the daemons, and the dead letters of the document. Raises Retry."""
        state, reasons = combine_reports(values.reports(report.model), self._time.now_ms())
        return replace(
            report,
            epoch=known.epoch,
            generation=known.generation,
            state=state,
            reasons=reasons,
            letters=self._dead_letters(report),
        )

    def add_changes(self, report: Report, root: TracedRoot, known: Registration) -> Report:
        """Adds the changes that reached the root, how far they are processed, and the waiting work items.

        Raises Retry if Kafka or PostgreSQL is unreachable. The next call then continues where the last one ended.
        """
        topics, changes = self._of_generation(root, known)
        topics.read(changes, self._time.now_ms())
        names = self._registry.names(report.model, root.loaded.compiled.tables, known.generation)
        began = {
            (topic, int(number)): offset for topic, all_ in known.starts.items() for number, offset in all_.items()
        }
        committed = began | self._registry.changes.committed(names.group, began.keys() | topics.start.keys())
        queues = self._registry.queues(names)
        return replace(
            report,
            since_ms=topics.since_ms,
            shortened=topics.shortened,
            changes=[
                TracedChange(found, progress_of(found, committed, began, known.beginning))
                for found in changes.in_order()
            ],
            omitted=changes.omitted,
            unreadable=len(changes.unreadable),
            behind=sum(max(0, offset - committed.get(partition, 0)) for partition, offset in topics.start.items()),
            work=list(pending(queues, root.key, root.loaded.compiled.key_types)),
        )

    def _of_generation(self, root: TracedRoot, known: Registration) -> tuple[ChangeTopics, Changes]:
        """Returns the reader of the topics, and the changes found so far. A resync starts both again."""
        if self._topics is None or self._changes is None or self._generation != known.generation:
            self._generation = known.generation
            topic = partial(topic_of, self._registry.config.kafka.topic_prefix)
            self._topics = ChangeTopics(
                self._registry.changes,
                tuple(known.starts),
                topic,
                since=self._since,
                most=self._most,
                progress=self._progress,
            )
            self._changes = Changes(root.loaded.compiled, root.sql.uses, root.key, root.leading)
        return self._topics, self._changes

    def _dead_letters(self, report: Report) -> Sequence[DeadLetter]:
        """Returns the open letters about the document. Reads the letters only if there are new ones."""
        store = self._registry.dead_letters(report.model)
        if (end := store.end()) != self._letters_end:
            subject = Subject("document", report.id)
            self._letters = [letter for letter in store.read() if letter.subject == subject]
            self._letters_end = end
        return self._letters


def progress_of(
    found: FoundChange,
    committed: Mapping[Partition, int],
    began: Mapping[Partition, int],
    beginning: Beginning | None,
) -> Progress:
    """Returns how far the pipeline is with a change.

    committed: the committed offsets of the read model's group.
    began, beginning: the offsets at which the read model began, and PostgreSQL's snapshot of that moment.
    """
    topic, number, offset = found.position
    change = found.change
    if offset < began.get((topic, number), 0):
        return "earlier"
    if not found.touches:
        return "ignored"
    if offset < committed.get((topic, number), 0):
        return "acknowledged"
    covered = beginning and change.txid is not None and beginning.covers(change.txid, change.committed_ms)
    return "earlier" if covered else "waiting"
