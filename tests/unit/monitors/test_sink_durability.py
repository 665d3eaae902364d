"""Memories: what is handed out when a sink has forgotten, when it is written down, and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from syncer.errors import Retry
from syncer.events import WorkItem
from syncer.monitors.sink_durability import SinkDurabilityMonitor
from syncer.ports import DurabilityToken
from tests.contracts.sinks import compiled
from tests.harness.memory_sink import MemorySink

FIRST = DurabilityToken("term 1", "history 1", "7")


class Asked(MemorySink):
    """Says what it is told to, or raises it."""

    def __init__(self, name: str = "memory:a") -> None:
        super().__init__(model=compiled("things"))
        self.name = name
        self.answer: DurabilityToken | Retry = FIRST

    def durability(self) -> DurabilityToken:
        if isinstance(self.answer, Retry):
            raise self.answer
        return self.answer


class Process:
    """What one process does about its sinks. state: shared with others, as JSON has it."""

    topic = "work"

    def __init__(self, state: dict[str, Any], *sinks: Asked) -> None:
        self.state, self.sinks, self.seen = state, sinks, dict[str, DurabilityToken]()
        self.done: list[str | WorkItem] = []
        self.broken = False

    def put(self, item: WorkItem) -> None:
        self.done.append(item)

    def flush(self) -> None:
        if self.broken:
            raise Retry("Kafka is away")
        self.done.append("flushed")

    def note(self, value: Mapping[str, Any]) -> None:
        self.done.append("noted")
        self.state.clear()
        self.state |= {name: list(memory) for name, memory in value.items()}

    def open(self) -> SinkDurabilityMonitor:
        return SinkDurabilityMonitor(
            "things",
            self.sinks,
            seen=self.seen,
            noted=dict(self.state),
            note=self.note,
            work=self,
            refill=lambda: self.done.append("refilled"),
            lost=lambda sink, what: self.done.append(what),
            max_age=30.0,
        )

    def look(self, at_ms: int = 0) -> list[str | WorkItem]:
        """What was done, in order."""
        self.done.clear()
        self.open().look(at_ms)
        return self.done


def sweep(what: str, at_ms: int, since: str = "") -> WorkItem:
    return WorkItem("sweep", f"lost {what}", not_before_ms=at_ms, sink="memory:a", since=since)


def test_the_first_answer_is_written_down_and_the_same_one_needs_nothing() -> None:
    state: dict[str, Any] = {}
    process = Process(state, Asked())
    assert process.look() == ["noted"]
    assert state == {"memory:a": ["term 1", "history 1", "7"]}
    assert process.look() == [] == Process(state, Asked()).look()


def test_hazard_21_deletes_forgotten_are_swept_once_no_older_write_can_be_on_its_way() -> None:
    process = Process({}, sink := Asked())
    process.look()
    sink.answer = DurabilityToken("term 2", "history 1")
    assert process.look(1_000) == [sweep("deletes", 121_000, "7"), "flushed", "deletes", "noted"]
    assert process.look(2_000) == []


def test_hazard_27_documents_lost_are_all_rendered_again() -> None:
    process = Process({}, sink := Asked())
    process.look()
    sink.answer = DurabilityToken("term 2", "history 2")
    assert process.look() == ["refilled", sweep("documents", 120_000), "flushed", "documents", "noted"]


def test_what_was_lost_while_nobody_looked_is_told_by_what_was_written_down() -> None:
    state: dict[str, Any] = {}
    Process(state, Asked()).look()
    sink = Asked()
    sink.answer = DurabilityToken("term 1", "history 2")
    assert "refilled" in Process(state, sink).look()


def test_nothing_is_written_down_before_the_work_is_durable() -> None:
    state: dict[str, Any] = {}
    process = Process(state, sink := Asked())
    process.look()
    sink.answer, process.broken = DurabilityToken("term 2", "history 1"), True
    with pytest.raises(Retry, match="Kafka is away"):
        process.look()
    assert state == {"memory:a": list(FIRST)}
    process.broken = False
    assert "noted" in process.look()


def test_each_process_judges_by_what_it_has_seen_itself() -> None:
    """One that reached the old primary for longer had writes acknowledged there after the others' refill."""
    state: dict[str, Any] = {}
    first, second = (Process(state, Asked()) for _ in range(2))
    first.look(), second.look()
    for process in (first, second):
        process.sinks[0].answer = DurabilityToken("term 2", "history 2")
        assert "refilled" in process.look()
    assert "refilled" not in Process(state, first.sinks[0]).look()


def test_what_was_written_is_known_from_the_look_before_the_last() -> None:
    """And written down once a minute, for a process that starts after the next loss."""
    state: dict[str, Any] = {}
    process = Process(state, sink := Asked())
    memories = process.open()
    for second in range(121):
        sink.answer = FIRST._replace(written=str(second))
        memories.look(second * 1000)
    assert state["memory:a"][2] == "60"
    sink.answer = DurabilityToken("term 2", "history 1", "130")
    memories.look(125_000)
    [item] = [one for one in process.done if isinstance(one, WorkItem)]
    assert item.since == "119"
    assert state == {"memory:a": ["term 2", "history 1", "120"]}
    later = Asked()
    later.answer = DurabilityToken("term 3", "history 1", "300")
    assert sweep("deletes", 120_000, "120") in Process(state, later).look()


def test_a_sink_that_is_away_hides_no_other() -> None:
    away, other = Asked("memory:a"), Asked("memory:b")
    process = Process({}, away, other)
    process.look()
    away.answer, other.answer = Retry("no answer"), DurabilityToken("term 2", "history 1")
    with pytest.raises(Retry, match="no answer"):
        process.look()
    assert process.done[-2:] == ["deletes", "noted"]
    away.answer = FIRST
    assert process.look() == []
