"""Readers of several sinks move to the new generation together, as far as the sinks allow it."""

from __future__ import annotations

import pytest

from syncer.errors import Fatal, Retry, SyncerError
from syncer.operations.backfill import Progress
from syncer.operations.switch_readers import switch_readers
from tests.contracts.sinks import compiled
from tests.harness.memory_sink import MemorySink


class Refusing(MemorySink):
    """Raises these errors, one for each activation, before it activates."""

    def __init__(self, name: str, *errors: SyncerError) -> None:
        super().__init__(model=compiled("things"))
        self.name, self.errors = name, list(errors)

    def activate(self) -> list[str]:
        if self.errors:
            raise self.errors.pop(0)
        return [f"the old target of {self.name}"]


def test_a_busy_sink_is_tried_until_it_switches() -> None:
    shown: list[Progress] = []
    sinks = [Refusing("a"), Refusing("b", Retry("cannot switch the view", why="locked"), Retry("no answer"))]
    assert switch_readers(sinks, shown.append, pause=0.001) == ["the old target of a", "the old target of b"]
    assert [one.note for one in shown] == [
        "switching readers of b, trying again: cannot switch the view: locked",
        "switching readers of b, trying again: no answer",
    ]


def test_a_refusal_names_the_sinks_that_have_switched() -> None:
    refusal = Fatal("views of yours depend on read.orders", where="postgres:read.orders", hint="drop them")
    with pytest.raises(Fatal) as error:
        switch_readers([Refusing("a"), Refusing("b", refusal)], lambda _: None)
    assert "read.orders. Applications read the new generation in a only" in error.value.what
    assert error.value.hint == "drop them; then run the resync again"
    with pytest.raises(Fatal) as error:
        switch_readers([Refusing("b", refusal), Refusing("a")], lambda _: None)
    assert error.value is refusal
