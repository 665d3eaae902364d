"""Tests which repair work a lost write in a sink causes, and when the new durability token is saved."""

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


class FakeSink(MemorySink):
    """Reports a given durability token, or raises a given error."""

    def __init__(self, name: str = "memory:a") -> None:
        super().__init__(model=compiled("things"))
        self.name = name
        self.answer: DurabilityToken | Retry = FIRST

    def durability(self) -> DurabilityToken:
        if isinstance(self.answer, Retry):
            raise self.answer
        return self.answer


class Process:
    """The monitor of one process. state: the saved tokens, which all processes share."""

    topic = "work"

    def __init__(self, state: dict[str, Any], *sinks: FakeSink) -> None:
        self.state, self.sinks, self.seen = state, sinks, dict[str, DurabilityToken]()
        self.done: list[str | WorkItem] = []
        self.broken = False

    def put(self, item: WorkItem) -> None:
        self.done.append(item)

    def flush(self) -> None:
        if self.broken:
            raise Retry("Kafka is unreachable")
        self.done.append("flushed")

    def save(self, value: Mapping[str, Any]) -> None:
        self.done.append("saved")
        self.state.clear()
        self.state |= {name: list(token) for name, token in value.items()}

    def open(self) -> SinkDurabilityMonitor:
        return SinkDurabilityMonitor(
            "things",
            self.sinks,
            seen=self.seen,
            saved=dict(self.state),
            save=self.save,
            work=self,
            refill=lambda: self.done.append("refilled"),
            lost=lambda sink, loss: self.done.append(loss),
            max_age=30.0,
        )

    def check(self, at_ms: int = 0) -> list[str | WorkItem]:
        """Returns the actions of one check, in order."""
        self.done.clear()
        self.open().check(at_ms)
        return self.done


def sweep(loss: str, at_ms: int, since: str = "") -> WorkItem:
    return WorkItem("sweep", f"lost {loss}", not_before_ms=at_ms, sink="memory:a", since=since)


def test_the_first_token_is_saved_and_an_equal_one_needs_no_work() -> None:
    state: dict[str, Any] = {}
    process = Process(state, FakeSink())
    assert process.check() == ["saved"]
    assert state == {"memory:a": ["term 1", "history 1", "7"]}
    assert process.check() == [] == Process(state, FakeSink()).check()


def test_hazard_21_lost_deletes_are_swept_after_no_older_write_can_arrive() -> None:
    process = Process({}, sink := FakeSink())
    process.check()
    sink.answer = DurabilityToken("term 2", "history 1")
    assert process.check(1_000) == [sweep("deletes", 121_000, "7"), "flushed", "deletes", "saved"]
    assert process.check(2_000) == []


def test_hazard_27_lost_documents_cause_a_render_of_all_documents() -> None:
    process = Process({}, sink := FakeSink())
    process.check()
    sink.answer = DurabilityToken("term 2", "history 2")
    assert process.check() == ["refilled", sweep("documents", 120_000), "flushed", "documents", "saved"]


def test_a_loss_while_no_process_ran_is_detected_from_the_saved_token() -> None:
    state: dict[str, Any] = {}
    Process(state, FakeSink()).check()
    sink = FakeSink()
    sink.answer = DurabilityToken("term 1", "history 2")
    assert "refilled" in Process(state, sink).check()


def test_no_token_is_saved_before_the_work_is_durable() -> None:
    state: dict[str, Any] = {}
    process = Process(state, sink := FakeSink())
    process.check()
    sink.answer, process.broken = DurabilityToken("term 2", "history 1"), True
    with pytest.raises(Retry, match="Kafka is unreachable"):
        process.check()
    assert state == {"memory:a": list(FIRST)}
    process.broken = False
    assert "saved" in process.check()


def test_each_process_compares_with_the_tokens_that_it_read_itself() -> None:
    """A process that reached the old primary for longer had writes acknowledged there after the others' refill."""
    state: dict[str, Any] = {}
    first, second = (Process(state, FakeSink()) for _ in range(2))
    first.check(), second.check()
    for process in (first, second):
        process.sinks[0].answer = DurabilityToken("term 2", "history 2")
        assert "refilled" in process.check()
    assert "refilled" not in Process(state, first.sinks[0]).check()


def test_a_sweep_starts_from_the_watermark_of_the_check_before_the_last() -> None:
    """The watermark is saved once a minute, for a process that starts after the next loss."""
    state: dict[str, Any] = {}
    process = Process(state, sink := FakeSink())
    monitor = process.open()
    for second in range(121):
        sink.answer = FIRST._replace(written=str(second))
        monitor.check(second * 1000)
    assert state["memory:a"][2] == "60"
    sink.answer = DurabilityToken("term 2", "history 1", "130")
    monitor.check(125_000)
    [item] = [one for one in process.done if isinstance(one, WorkItem)]
    assert item.since == "119"
    assert state == {"memory:a": ["term 2", "history 1", "120"]}
    later = FakeSink()
    later.answer = DurabilityToken("term 3", "history 1", "300")
    assert sweep("deletes", 120_000, "120") in Process(state, later).check()


def test_an_unreachable_sink_does_not_hide_the_loss_of_another() -> None:
    unreachable, other = FakeSink("memory:a"), FakeSink("memory:b")
    process = Process({}, unreachable, other)
    process.check()
    unreachable.answer, other.answer = Retry("no answer"), DurabilityToken("term 2", "history 1")
    with pytest.raises(Retry, match="no answer"):
        process.check()
    assert process.done[-2:] == ["deletes", "saved"]
    unreachable.answer = FIRST
    assert process.check() == []


def test_a_sink_that_remembers_gets_the_token_from_before_a_restart() -> None:
    class Remembering(FakeSink):
        remembered: DurabilityToken | None = None

        def remember(self, token: DurabilityToken) -> None:
            self.remembered = token

    state: dict[str, Any] = {}
    first, second = Remembering(), Remembering()
    Process(state, first).check()
    assert first.remembered is None
    Process(state, second).open()
    assert second.remembered == FIRST
