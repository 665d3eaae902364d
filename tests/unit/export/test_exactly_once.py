"""Generated histories of several exports, some killed or frozen, over a model of Delta's log. And weakened rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from syncer.errors import Retry
from syncer.export.appender import Appender
from syncer.export.pending import Pending
from syncer.ports import DocumentWrite
from tests.unit.export.delta_model import Log, ModelTable, TrustingAppender

PARTITIONS = 2


class RebasingTable(ModelTable):
    """The weakened rule: lets delta-rs put an append on top of a version that was not checked."""

    def append(self, records: Pending, next_offsets: Mapping[int, int]) -> bool:
        self.load()
        return super().append(records, next_offsets)


@dataclass
class Process:
    """One export, stopped between two steps."""

    table: ModelTable
    appender: Appender
    pending: Pending
    checked: bool = False
    """Whether the next step is the append."""


class Exports(RuleBasedStateMachine):
    """Every step is a rule: the search decides which process proceeds. A process without steps is a frozen one."""

    table: type[ModelTable] = ModelTable
    appender: type[Appender] = Appender

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.topic: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
        self.processes: list[Process] = []

    @initialize()
    def begin(self) -> None:
        self.produce(0, 2)
        self.start()
        self.start()

    @rule(partition=st.integers(0, PARTITIONS - 1), count=st.integers(1, 3))
    def produce(self, partition: int, count: int) -> None:
        self.topic[partition] += count

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def start(self) -> None:
        table = self.table(self.log)
        table.load()
        first = dict.fromkeys(self.topic, 0)
        pending = Pending(first | table.next_offsets(first))
        self.processes.append(Process(table, self.appender(table), pending))

    @precondition(lambda self: len(self.processes) == 3)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.processes.remove(self.one(data))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), count=st.integers(1, 4), then_check=st.booleans())
    def read(self, data: st.DataObject, count: int, then_check: bool) -> None:
        process = self.one(data)
        if not process.checked:
            for partition, end in self.topic.items():
                begin = process.pending.next[partition]
                offsets = range(begin, min(end, begin + count))
                assert not process.pending.add(DocumentWrite(partition, at, "", 1, None, 0) for at in offsets)
            if then_check and process.pending:
                process.checked = process.appender.missing(process.pending) > 0

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def check(self, data: st.DataObject) -> None:
        process = self.one(data)
        if process.pending and not process.checked:
            process.checked = process.appender.missing(process.pending) > 0

    @precondition(lambda self: any(process.checked for process in self.processes))
    @rule(data=st.data(), lost=st.booleans())
    def append(self, data: st.DataObject, lost: bool) -> None:
        process = data.draw(st.sampled_from([one for one in self.processes if one.checked]))
        process.checked, process.table.unknown = False, lost
        try:
            if process.table.append(process.pending, process.pending.ends()):
                process.pending.skip(process.pending.ends())
        except Retry:
            self.processes.remove(process)  # a new process takes its place
        process.table.unknown = False

    def one(self, data: st.DataObject) -> Process:
        found: Process = data.draw(st.sampled_from(self.processes))
        return found

    @invariant()
    def no_gap_and_no_duplicate(self) -> None:
        for partition in self.topic:
            offsets = [offset for number, offset in self.log.rows() if number == partition]
            assert offsets == list(range(len(offsets)))

    def teardown(self) -> None:
        """Lets one more process finish the work."""
        if (self.table, self.appender) == (ModelTable, Appender):
            self.start_and_finish()
            assert sorted(self.log.rows()) == [(p, at) for p, end in self.topic.items() for at in range(end)]

    def start_and_finish(self) -> None:
        table = ModelTable(self.log)
        table.load()
        pending = Pending(dict.fromkeys(self.topic, 0) | table.next_offsets(self.topic))
        for partition, end in self.topic.items():
            pending.add(DocumentWrite(partition, at, "", 1, None, 0) for at in range(pending.next[partition], end))
        Appender(table).append(pending)


TestExports = Exports.TestCase
TestExports.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("weaker", [{"appender": TrustingAppender}, {"table": RebasingTable}], ids=str)
def test_a_weakened_rule_is_caught(weaker: Mapping[str, type]) -> None:
    Weaker = type("Weaker", (Exports,), dict(weaker))  # noqa: N806 - a class
    found = settings(max_examples=2000, stateful_step_count=12, deadline=None, phases=(Phase.generate,), database=None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Weaker, settings=found)
