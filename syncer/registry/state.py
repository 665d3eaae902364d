"""Reads and writes the records of `records.py` in a `ports.StateStore`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from syncer.ports import StateStore
from syncer.registry.records import Key, ProcessReport, Registration, StateRecord, StateSlot, is_report_of, model_of

R = TypeVar("R", bound=StateRecord)


class StateSnapshot:
    """The state as it was read at one moment. An empty JSON object counts as no record."""

    def __init__(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        self._values = values

    def get(self, key: Key[R]) -> R | None:
        value = self._values.get(key.text)
        return key.decode(value) if value else None

    def registration(self, model: str, slot: StateSlot = StateSlot.ACTIVE) -> Registration | None:
        return self.get(Registration.key(model, slot))

    def models(self) -> set[str]:
        """Returns the read models that are registered."""
        return {model for key, value in self._values.items() if value and (model := model_of(key))}

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

    def save(self, key: Key[R], record: R | None) -> None:
        """See `ports.StateStore.save`."""
        self._store.save(key.text, None if record is None else record.encode())
