"""Reads and writes the records of `records/` in a `ports.StateStore`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from syncer.ports import StateStore
from syncer.registry.records import (
    Activated,
    Generation,
    GenerationRecord,
    Key,
    ProcessReport,
    Registration,
    StateRecord,
    StateSlot,
    SwapAnnounced,
    generation_of,
    is_report_of,
)

R = TypeVar("R", bound=StateRecord)


class StateSnapshot:
    """The state as it was read at one moment. An empty JSON object counts as no record."""

    def __init__(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        self._values = values

    def get(self, key: Key[R]) -> R | None:
        value = self._values.get(key.text)
        return key.decode(value) if value else None

    def registration(self, model: str, slot: StateSlot = StateSlot.ACTIVE) -> Registration | None:
        """Returns the latest generation that is active, or the latest one that is built to follow it."""
        active = max(self._numbers(model, Registration) & self._numbers(model, Activated), default=0)
        if slot is StateSlot.ACTIVE:
            return self.get(Registration.key(Generation(model, active)))
        newest = max(self._numbers(model, Registration), default=0)
        return self.get(Registration.key(Generation(model, newest))) if newest > active else None

    def _numbers(self, model: str, record: type[GenerationRecord]) -> set[int]:
        """Returns the generations of a read model that have a record of this kind."""
        own = (key for key, value in self._values.items() if value and key.startswith(f"{model}/"))
        return {found.number for key in own if (found := generation_of(key, record))}

    def switch(self, leaving: Generation) -> tuple[int, SwapAnnounced] | None:
        """Returns the latest generation to which readers of this one are being switched. None if there is none."""
        following = max(self._numbers(leaving.model, SwapAnnounced), default=0)
        announced = self.get(SwapAnnounced.key(Generation(leaving.model, following)))
        return (following, announced) if announced and following > leaving.number else None

    def models(self) -> set[str]:
        """Returns the read models that are registered."""
        found = (generation_of(key, Activated) for key, value in self._values.items() if value)
        return {one.model for one in found if one}

    def reports(self, model: str) -> list[ProcessReport]:
        """Returns the last report of every daemon about this read model, also of daemons that were killed."""
        return [
            ProcessReport.decode(value) for key, value in self._values.items() if value and is_report_of(key, model)
        ]


class State:
    """The typed form of a state store. Any thread may use it."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def prepare(self) -> None:
        """See `ports.StateStore.prepare`."""
        self._store.prepare()

    def load(self, max_age: float = 0.0) -> StateSnapshot:
        """See `ports.StateStore.load`."""
        return StateSnapshot(self._store.load(max_age))

    def load_since(self, moment: float) -> StateSnapshot:
        """See `ports.StateStore.load_since`."""
        return StateSnapshot(self._store.load_since(moment))

    def save(self, key: Key[R], record: R | None) -> None:
        """See `ports.StateStore.save`."""
        self._store.save(key.text, None if record is None else record.encode())
