"""Stage 2 for all records of a poll: decodes them, and sorts changes, work items and rejected records.

A record that cannot be read is rejected alone. The others go on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from syncer.errors import Reject
from syncer.events import ChangeEvent, WorkItem
from syncer.pipeline import decode
from syncer.pipeline.route import Route
from syncer.pipeline.shared_topics import SharedTopics
from syncer.ports import Record, View


@dataclass(slots=True)
class Decoded:
    """The records of one poll. A lane polls either changes or work items."""

    changes: list[ChangeEvent] = field(default_factory=list)
    items: list[tuple[Record, WorkItem]] = field(default_factory=list)
    unknown: list[tuple[Record, ChangeEvent]] = field(default_factory=list)
    """Changes of tables that the read model does not use. The catalog decides whether they can be ignored."""
    rejected: list[tuple[Record, Reject]] = field(default_factory=list)


class Intake:
    """item_topics: the topics that hold work items. columns: the number of columns of a key.

    roots: whether an item may also name the roots of partials, by one column less.
    """

    def __init__(
        self,
        route: Route,
        shared_topics: SharedTopics,
        item_topics: Collection[str],
        columns: int,
        *,
        roots: bool = False,
    ) -> None:
        self._route, self._shared_topics = route, shared_topics
        self._item_topics, self._columns, self._roots = frozenset(item_topics), columns, roots

    def __call__(self, records: Sequence[Record]) -> Decoded:
        """Decodes the records, in their order. Ignores tombstones."""
        decoded = Decoded()
        for record in records:
            try:
                if record.position.topic in self._item_topics:
                    item = decode.work(record.position, record.value, self._columns, roots=self._roots)
                    if item is not None:
                        decoded.items.append((record, item))
                else:
                    self._sort(record, decode.change(record.position, record.value), decoded)
            except Reject as error:
                decoded.rejected.append((record, error))
        return decoded

    def _sort(self, record: Record, change: ChangeEvent | None, decoded: Decoded) -> None:
        if change is None:
            return
        if self._route.knows(change.table) or self._shared_topics.knows(change.table):
            decoded.changes.append(change)
        elif self._shared_topics.maps_to(change.table, record.position.topic):
            decoded.unknown.append((record, change))
        else:
            raise self._shared_topics.rejection(record, change.table)

    def ask_catalog(self, view: View, decoded: Decoded) -> None:
        """Moves each unknown change to the changes or to the rejected records.

        view: has to see the transactions of these changes.
        """
        why = self._shared_topics.query(view, {change.table for _, change in decoded.unknown})
        for record, change in decoded.unknown:
            if change.table in why:
                error = self._shared_topics.rejection(record, change.table, why[change.table])
                decoded.rejected.append((record, error))
            else:
                decoded.changes.append(change)
        decoded.unknown = []
