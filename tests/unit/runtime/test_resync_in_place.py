"""A later epoch in a sink is expected while a resync writes to the same keys. Other errors stay what they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from syncer.errors import Fatal, LaterEpoch
from syncer.registry.records import Generation, StateSlot
from syncer.runtime.supervisor import ModelSupervisor

ACTIVE = SimpleNamespace(model="orders", id=Generation("orders", 1))


@pytest.mark.parametrize(
    ("error", "slots", "rebuilt"),
    [
        (LaterEpoch("the target holds documents of a later epoch"), StateSlot, True),
        (LaterEpoch("the target holds documents of a later epoch"), [StateSlot.ACTIVE], False),
        (Fatal("a column is missing"), StateSlot, False),
        (ValueError("a defect"), StateSlot, False),
    ],
)
def test_only_a_later_epoch_during_a_resync_is_no_failure(error: Exception, slots: Any, rebuilt: bool) -> None:
    state = SimpleNamespace(
        registration=lambda model, slot: ACTIVE if slot in slots else None, switch=lambda leaving: None
    )
    registry = SimpleNamespace(state=SimpleNamespace(load=lambda: state))
    supervisor: Any = SimpleNamespace(registry=registry, model=SimpleNamespace(name="orders"))
    found = ModelSupervisor._rebuilt_in_place(supervisor, error)
    assert (found is not None) == rebuilt
    if found:
        assert "in place" in found.what
