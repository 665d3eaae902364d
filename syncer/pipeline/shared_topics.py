"""Part of stage 2: decides which changes of other tables in the read model's topics can be ignored.

Debezium replaces a character that Kafka does not allow in a topic's name with `_`. So the changes of "Order Lines"
and "Order_Lines" share one topic, and each event names its own table. An event is ignored only if both are true:

- The catalog has a table of that name, and the name maps to this topic.
- That table shares no partition tree with a table of the read model.

Every other event becomes a dead letter.

The catalog is queried in a snapshot that sees the event's transaction. So a table that was just created is found, too.
A table that was found is not queried again. After its rename, events with the former name still belong to it, not to a
table of the read model. If a table of the read model is renamed, all documents are rendered again
(`monitors/table_alterations.py`). This also repairs the effect of ignored events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from syncer.errors import Reject
from syncer.events import TableName
from syncer.ports import Record, View


class SharedTopics:
    """The other tables that one lane has met.

    model: the read model's name. own: its tables. topic_of: returns the topic of a table's changes.
    """

    def __init__(self, model: str, own: Collection[TableName], topic_of: Callable[[TableName], str]) -> None:
        self._model, self._own, self._topic_of = model, frozenset(own), topic_of
        self._known: set[TableName] = set()

    def knows(self, table: TableName) -> bool:
        """Whether an earlier query showed that changes of this table can be ignored."""
        return table in self._known

    def maps_to(self, table: TableName, topic: str) -> bool:
        """Whether Debezium writes the changes of a table with this name to this topic."""
        return self._topic_of(table) == topic

    def query(self, view: View, tables: Collection[TableName]) -> dict[TableName, str]:
        """Queries the catalog for these tables. Returns those whose changes cannot be ignored, and why."""
        trees = view.trees([*self._own, *tables])
        own = {trees.get(table, table): table for table in self._own}
        why: dict[TableName, str] = {}
        for table in tables:
            if table not in trees:
                why[table] = "its changes come in this topic, but PostgreSQL has no such table now"
            elif trees[table] in own:
                why[table] = f"it is in the partition tree of {own[trees[table]]}"
            else:
                self._known.add(table)
        return why

    def rejection(self, record: Record, table: TableName, why: str = "") -> Reject:
        """Returns the error for a change that cannot be ignored."""
        return Reject(
            f"the change event is of {table}, which is not a table of this read model",
            where=str(record.position),
            why=why or "its changes belong in another topic",
            hint=f"syncer check {self._model}; "
            f"if the table was dropped or renamed: syncer dlq drop {self._model} LETTER",
        )
