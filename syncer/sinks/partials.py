"""The methods of a sink that stores partials, and the rule for ids that its store cannot have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from syncer.ports import StoredPartial, StoredPartials

Given = Mapping[str, Mapping[str, bytes | None]]
"""Partials to write: by document id and bucket. None is a delete."""
Found = dict[str, dict[str, StoredPartial]]
"""`StoredPartials` under construction."""


class PartialStore(Protocol):
    """The partials of one read model in one store. The methods have the contract of `ports.PartialSink`."""

    def write(self, version: int, partials: Given, timeout: float) -> StoredPartials: ...

    def read(self, ids: Sequence[str]) -> StoredPartials: ...

    def ids(self) -> Iterator[tuple[str, str]]: ...


class StoresPartials:
    """Implements `ports.PartialSink` for a sink with a store of partials."""

    _partials: PartialStore | None
    """None if the read model has no partials. Then nothing calls these methods."""

    def write_partials(self, version: int, partials: Given, timeout: float) -> StoredPartials:
        return self._store.write(version, partials, timeout)

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        return self._store.read(ids)

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        return self._store.ids()

    @property
    def _store(self) -> PartialStore:
        if self._partials is None:
            raise AssertionError("the read model has no partials")
        return self._partials


def separate(version: int, partials: Given, problem: Callable[[str], str]) -> tuple[list[str], Found]:
    """Returns the ids that a store can have, and the partials of all others as if they were stored.

    The write of a document with an impossible id rejects it, so this document needs no stored partials.
    problem: returns why the store cannot have an id. Empty if it can.
    """
    impossible = {
        id: {bucket: StoredPartial(version, body) for bucket, body in parts.items()}
        for id, parts in partials.items()
        if problem(id)
    }
    return [id for id in partials if id not in impossible], impossible
