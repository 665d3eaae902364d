"""The protocol of combined partials: the last document shows all partials, whatever order two writers have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncer.clock import version
from syncer.declaration.compiled import CombinedField
from syncer.errors import Fatal
from syncer.pipeline.combine import combined_version
from syncer.pipeline.combine_states import State, assemble

ROOT = "root"
Version = Callable[[Sequence[int]], int]


@dataclass
class Store:
    """A sink: partials and documents with their versions. Each method is atomic, as in a sink."""

    partials: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    document: tuple[int, Mapping[str, int | None]] = (0, {})

    def write_partial(self, bucket: str, clock: int, value: int | None, *, drop_empty: bool) -> None:
        if clock > self.partials.get(bucket, (0, None))[0]:
            self.partials[bucket] = clock, value
            if drop_empty and value == 0:
                del self.partials[bucket]

    def write_document(self, version: int, shown: Mapping[str, int | None]) -> None:
        if version > self.document[0]:
            self.document = version, shown


@dataclass
class Writer:
    """A daemon with its batches: each has the clock of its snapshot, and the partials as the snapshot shows them."""

    store: Store
    version_of: Version
    drop_empty: bool
    batches: list[tuple[int, dict[str, int | None]]]
    read: dict[str, tuple[int, int | None]] | None = None

    def step(self) -> bool:
        """Does the next atomic step: write partials and read all (one script in Redis), or write the document."""
        if self.read is not None:
            total = self.version_of([clock for clock, _ in self.read.values()])
            self.store.write_document(total, {bucket: value for bucket, (_, value) in self.read.items()})
            self.read = None
            self.batches.pop(0)
            return True
        if not self.batches:
            return False
        clock, parts = self.batches[0]
        for bucket, value in parts.items():
            self.store.write_partial(bucket, clock, value, drop_empty=self.drop_empty)
        self.read = dict(self.store.partials)
        return True

    def crash(self) -> None:
        """Loses what was read. The batch is not acknowledged, so it is repeated."""
        self.read = None


HISTORY = st.lists(
    st.tuples(
        st.sampled_from([ROOT, "0", "1", "2"]),
        st.sampled_from([0, 1, 2, None]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=8,
)
"""Commits: which partial changes to which value, and which writer gets the event."""


def play(
    history: Sequence[tuple[str, int | None, int]],
    schedule: list[int],
    version_of: Version,
    *,
    drop_empty: bool = False,
) -> tuple[Mapping[str, int | None], Mapping[str, int | None]]:
    """Returns the document that is left, and the partials as they are in the database."""
    store = Store()
    truth = dict[str, int | None]({ROOT: 1, "0": 0, "1": 0, "2": 0})
    writers = [Writer(store, version_of, drop_empty, []) for _ in range(2)]
    writers[0].batches.append((1, dict(truth)))
    for clock, (bucket, value, number) in enumerate(history, 2):
        truth[bucket] = value if value is not None or bucket == ROOT else 0
        writers[number].batches.append((clock, {bucket: truth[bucket]}))
    for choice in schedule:
        if choice == 2:
            writers[0].crash()
        else:
            writers[choice].step()
    for writer in writers:
        while writer.step():
            pass
    return store.document[1], truth


@settings(max_examples=400, deadline=None)
@given(HISTORY, st.lists(st.integers(0, 2), max_size=25))
def test_the_last_document_shows_all_partials(history: list[tuple[str, int | None, int]], schedule: list[int]) -> None:
    shown, truth = play(history, schedule, sum)
    assert shown == truth


def test_the_maximum_instead_of_the_sum_loses_an_update() -> None:
    """Two batches with different buckets: the second to read has the same maximum, and is refused."""
    history = [("0", 1, 1), ("1", 2, 0)]
    schedule = [0, 0, 0, 0, 1, 1]  # the later commit first: the maximum no longer grows
    assert play(history, schedule, max)[0] != play(history, schedule, max)[1]
    shown, truth = play(history, schedule, sum)
    assert shown == truth


def test_dropping_an_empty_partial_loses_an_update() -> None:
    history = [("0", 2, 0), ("0", 0, 0)]
    shown, _ = play(history, [], sum, drop_empty=True)
    assert shown.get("0") == 2  # the sum fell with the partial, so the document was refused
    shown, truth = play(history, [], sum)
    assert shown == truth


def test_version_is_the_epoch_and_the_sum_of_the_clocks() -> None:
    assert combined_version([version(3, 10), version(3, 5)], "m") == version(3, 15)
    with pytest.raises(Fatal, match="too many for its version"):
        combined_version([version(1, 2**47), version(1, 2**47)], "m")


def test_documents_are_the_text_of_postgresql() -> None:
    fields = [
        CombinedField("name", "", 0),
        CombinedField("n", "count", 0),
        CombinedField("total", "sum", 1),
        CombinedField("mean", "avg", 2),
        CombinedField("low", "min", 4),
        CombinedField("any", "bool_or", 6),
    ]
    states: list[State] = [
        ["2", "1.50", "1.50", "2", "0.5", "0.5", "false"],
        ["1", "2.125", "2.125", "1", "2.125", "2.125", "true"],
        ["0", None, None, "0", None, None, None],
    ]
    found = assemble(fields, b'{"name":"a, \\"b\\""}', states)
    assert found == b'{"name":"a, \\"b\\"","n":3,"total":3.625,"mean":1.20833333333333333333,"low":0.5,"any":true}'
    empty = assemble(fields, b'{"name":null}', states[2:])
    assert empty == b'{"name":null,"n":0,"total":null,"mean":null,"low":null,"any":null}'
