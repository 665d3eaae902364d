"""Plays a read model with partials. Its documents are combined in memory, or in another sink that stores partials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncer.declaration.compile import Compiled
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import parse_id
from syncer.pipeline.combine import split_id
from syncer.pipeline.work_items import key_items
from syncer.ports import Record, Sink, StoredPartial, StoredPartials
from tests.engine.divided_groups import DividedGroups
from tests.engine.groups import GroupedPlay
from tests.engine.partials import PartialCase
from tests.engine.world import FailingPartialSink
from tests.harness.engine import MemoryDeadLetters
from tests.harness.memory_sink import MemorySink, Store

_REPLAYS = 20
"""More than the faults of the sink that can wait for a replay."""


@dataclass(slots=True)
class PartialStore(Store):
    """A store with partials: by document and bucket."""

    partials: dict[str, dict[str, StoredPartial]] = field(default_factory=dict)


class MemoryPartialSink(MemorySink):
    """A sink in memory that stores partials."""

    store: PartialStore

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        for id, parts in partials.items():
            known = self.store.partials.setdefault(id, {})
            for bucket, body in parts.items():
                if bucket not in known or known[bucket].version < version:
                    known[bucket] = StoredPartial(version, body)
        return self.read_partials(list(partials))

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        return {id: dict(self.store.partials[id]) for id in ids if id in self.store.partials}

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        yield from [(id, bucket) for id, parts in self.store.partials.items() for bucket in parts]


class PartialLetters(MemoryDeadLetters):
    """Dead letters about partials. All records can be read."""

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(reason)


class PartialPlay(GroupedPlay):
    """A play whose documents are combined from partials. The expected documents are those of SQL.

    The sink may refuse documents for a while. Their dead letters are replayed at the end.
    """

    case: PartialCase | DividedGroups  # type: ignore[assignment]
    letters = PartialLetters

    def __init__(self, dsn: str, case: Any, make_sink: Callable[[Compiled], Sink] | None = None) -> None:
        self.store = PartialStore()
        super().__init__(dsn, case, make_sink or (lambda model: MemoryPartialSink(model=model, store=self.store)))

    @staticmethod
    def failing(sink: Sink) -> FailingPartialSink:
        return FailingPartialSink(sink)

    def refused(self) -> list[str]:
        """Returns the ids of the partials with an open dead letter, except those of the group of an empty text."""
        assert self.compiled.partials
        return [id for id in self.dead_letters.open if split_id(self.compiled.partials, id)[0]]

    def drain(self) -> None:
        """Processes all records. Replays the dead letters, until the sink refuses nothing more."""
        super().drain()
        for _ in range(_REPLAYS):
            if not self.refused():
                return
            self._check_letters()
            columns = len(self.compiled.rendered.key)
            for item in key_items([parse_id(id, columns) for id in self.refused()], 2, "replay"):
                self.work.put(item)
            super().drain()
        assert not self.refused(), "replays do not resolve these dead letters"

    def _check_letters(self) -> None:
        """Asserts that every document that differs has an open dead letter."""
        assert self.compiled.partials
        lettered = {split_id(self.compiled.partials, id)[0] for id in self.dead_letters.open}
        have, want = self.written(), self.expected()
        lacking = [id for id in have | want if have.get(id) != want.get(id) and id not in lettered]
        assert not lacking, f"documents differ and have no dead letter: {lacking}"

    def forget(self) -> None:
        """The sink forgets deleted documents with their partials, as a sink does after a while.

        By then, no render of them is waiting: it would be older than `pipeline.max_age`.
        """
        self.drain()
        for id, parts in list(self.store.partials.items()):
            of_root = parts.get(ROOT_PARTIAL)
            if of_root is not None and of_root.body is None:
                del self.store.partials[id]
                self.store.documents.pop(id, None)
