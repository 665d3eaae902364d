"""Stage 2 for a whole poll: changes, work items, changes of other tables, and records that cannot be read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import orjson

from syncer.events import Position, TableName, WorkItem
from syncer.pipeline.decode import encode_item
from syncer.pipeline.intake import Intake
from syncer.pipeline.route import Route
from syncer.pipeline.shared_topics import SharedTopics
from syncer.ports import Record, View
from tests.unit.pipeline.examples import ITEMS, MODEL, event

NEIGHBOUR = TableName("public", "it ems")
TOPIC = "shop.public.items"


def topic_of(table: TableName) -> str:
    """Maps both tables to one topic, as Debezium does with characters that Kafka does not allow."""
    return f"shop.public.{table.name.replace(' ', '')}"


def intake() -> Intake:
    return Intake(Route(MODEL), SharedTopics("orders", [ITEMS], topic_of), {"work"}, columns=1)


def record(offset: int, value: bytes | None, topic: str = TOPIC) -> Record:
    return Record(Position(topic, 0, offset), None, value)


def of_table(name: str) -> bytes:
    fields: dict[str, Any] = orjson.loads(event("c", after={"id": 1}))
    fields["source"]["table"] = name
    return orjson.dumps(fields)


class Catalog:
    """`View.trees` over these tables, none of them a partition."""

    def __init__(self, *tables: TableName) -> None:
        self.tables = tables

    def trees(self, tables: Collection[TableName]) -> dict[TableName, TableName]:
        return {table: table for table in tables if table in self.tables}


def test_a_record_that_cannot_be_read_is_rejected_alone() -> None:
    values = [event("c", after={"id": 1}), b"no JSON", None, event("c", after={"id": 2})]
    decoded = intake()([record(offset, value) for offset, value in enumerate(values)])
    assert [change.after for change in decoded.changes] == [{"id": 1}, {"id": 2}]
    [(rejected, error)] = decoded.rejected
    assert rejected.position.offset == 1 and error.what == "cannot read a change event"


def test_records_of_a_work_topic_are_work_items() -> None:
    item = WorkItem("keys", "fan-out", keys=(("1",),))
    one = record(0, encode_item(item), "work")
    assert intake()([one, record(1, None, "work")]).items == [(one, item)]


def test_a_change_of_another_table_in_the_same_topic_waits_for_the_catalog() -> None:
    stage = intake()
    decoded = stage([record(0, of_table("it ems"))])
    assert (decoded.changes, len(decoded.unknown), decoded.rejected) == ([], 1, [])
    stage.ask_catalog(cast(View, Catalog(ITEMS, NEIGHBOUR)), decoded)
    assert ([change.table for change in decoded.changes], decoded.unknown, decoded.rejected) == ([NEIGHBOUR], [], [])
    assert not stage([record(1, of_table("it ems"))]).unknown, "the catalog is queried once"


def test_a_change_of_a_table_that_does_not_exist_is_rejected() -> None:
    stage = intake()
    decoded = stage([record(0, of_table("it ems"))])
    stage.ask_catalog(cast(View, Catalog(ITEMS)), decoded)
    [(_, error)] = decoded.rejected
    assert "PostgreSQL has no such table now" in error.why and not decoded.changes


def test_a_change_that_belongs_in_another_topic_is_rejected() -> None:
    [(_, error)] = intake()([record(0, of_table("customers"))]).rejected
    assert error.what == "the change event is of public.customers, which is not a table of this read model"
    assert error.why == "its changes belong in another topic"
