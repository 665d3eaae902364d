"""Part of stage 2: tables that a read model does not use, and whose changes come in its topics all the same.

Debezium writes a character that Kafka refuses in a topic's name as `_`. So the changes of "Order Lines" and
"Order_Lines" are in one topic, and each event names its own table. An event is ignored only if the catalog
has a table of that name that maps to this topic, and if that table shares no partition tree with a table of
the read model. Everything else is a dead letter.

The catalog is asked in a snapshot that sees the event's transaction, so a table that was just created is
there. A table that was found once is not asked for again. After a rename, the events of its former name are
still of that table, not of one that the read model uses. If a table of the read model was renamed, then all
documents are rendered again (`monitors/table_alterations.py`), whatever was ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from syncer.errors import Reject
from syncer.events import TableName
from syncer.ports import Record, View


class Neighbours:
    """Of one lane.

    model: the read model's name. own: its tables. topic_of: the topic of a table's changes.
    """

    def __init__(self, model: str, own: Collection[TableName], topic_of: Callable[[TableName], str]) -> None:
        self._model, self._own, self._topic_of = model, frozenset(own), topic_of
        self._known: set[TableName] = set()

    def knows(self, table: TableName) -> bool:
        """Whether its changes can be ignored, as far as the catalog was asked."""
        return table in self._known

    def fits(self, table: TableName, topic: str) -> bool:
        """Whether changes of such a table come in this topic, if it exists."""
        return self._topic_of(table) == topic

    def learn(self, view: View, tables: Collection[TableName]) -> dict[TableName, str]:
        """Ask the catalog for these tables. Returns why the changes of some of them cannot be ignored."""
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

    def refused(self, record: Record, table: TableName, why: str = "") -> Reject:
        """The dead letter of a change that cannot be ignored."""
        return Reject(
            f"a change of {table}, which is no table of this read model",
            where=str(record.position),
            why=why or "its changes belong in another topic",
            hint=f"syncer check {self._model}; "
            f"if the table was dropped or renamed: syncer dlq drop {self._model} LETTER",
        )
