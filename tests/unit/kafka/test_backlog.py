"""The backlog of a consumer group, as `syncer status` counts it."""

from __future__ import annotations

from typing import Any

from syncer.events import Position
from syncer.kafka.change_log import read_backlog
from syncer.ports import Record


class Growing:
    """A reader of a topic that gets further records while it is read."""

    def first(self, start: Any, each: int) -> dict[Any, list[Record]]:
        return {
            (topic, number): [Record(Position(topic, number, offset + n), None, b"") for n in range(each)]
            for (topic, number), offset in start.items()
        }


def test_records_that_arrive_while_the_backlog_is_read_do_not_count() -> None:
    reader: Any = Growing()
    waiting = {("work", 0): (5, 7), ("work", 1): (0, 100)}
    two, many = read_backlog(reader, waiting, 3)
    assert (two.records, [one.position.offset for one in two.first]) == (2, [5, 6])
    assert (many.records, [one.position.offset for one in many.first]) == (100, [0, 1, 2])
    assert read_backlog(reader, {}, 3) == []
