"""The sink that combines partials: a document is not written later than its partials may be old."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from syncer.clock import version
from syncer.declaration.partial_keys import ROOT_PARTIAL
from syncer.document import Batch, Outcome
from syncer.pipeline import combine
from syncer.pipeline.combine import CombiningSink
from syncer.ports import DurabilityToken, StoredPartial, StoredPartials


class Slow:
    """A sink that stores partials. The partials of each document take `seconds` of its `clock`."""

    name, in_place = "slow", False

    def __init__(self, seconds: float) -> None:
        self.seconds, self.clock = seconds, 0.0
        self.partials: dict[str, dict[str, StoredPartial]] = {}
        self.writes: list[Batch] = []
        self.timeouts: list[float] = []

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        deadline, found = self.clock + timeout, {}
        for id, parts in partials.items():
            if self.clock >= deadline:
                break
            self.clock += self.seconds
            known = self.partials.setdefault(id, {})
            known |= {bucket: StoredPartial(version, body) for bucket, body in parts.items()}
            found[id] = known
        return found

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        return {id: self.partials[id] for id in ids}

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self.timeouts.append(timeout)
        self.writes.append(batch)
        return Outcome(deleted=len(batch.deletes))

    def durability(self) -> DurabilityToken:
        return DurabilityToken("", "")


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Slow, float], Outcome]:
    """Returns the function that writes nine roots, of which each has one partial more than the one before."""

    def written(sink: Slow, timeout: float) -> Outcome:
        partials: Any = SimpleNamespace(parts=SimpleNamespace(key=("id", "bucket")), fields=())
        monkeypatch.setattr(combine, "time", SimpleNamespace(monotonic=lambda: sink.clock))
        for number in range(9):
            sink.partials[str(number)] = {str(n): StoredPartial(version(1, 1), None) for n in range(number)}
        roots = [f"{number}|{ROOT_PARTIAL}" for number in range(9)]
        combined = CombiningSink(sink, partials, "things")  # type: ignore[arg-type]
        return combined.write(Batch(version(1, 7), {}, roots), timeout)

    return written


def test_all_documents_are_one_write_and_each_has_the_sum_of_its_clocks(
    write: Callable[[Slow, float], Outcome],
) -> None:
    sink = Slow(0.125)
    out = write(sink, 4.5)
    [batch] = sink.writes
    assert out.deleted == 9 and sink.timeouts == [4.5 - 9 * 0.125]
    assert [batch.version_of(str(number)) for number in range(9)] == [version(1, 7 + number) for number in range(9)]


def test_a_slow_server_gets_some_of_the_documents(write: Callable[[Slow, float], Outcome]) -> None:
    """The partials of nine documents would take the whole time. The others are rendered again."""
    sink = Slow(1.0)
    out = write(sink, 4.5)
    [batch] = sink.writes
    assert batch.ids() == ["0", "1", "2"] and sink.timeouts == [1.5] and out.deleted == 3
    assert sorted(out.retry) == [f"{number}|{ROOT_PARTIAL}" for number in range(3, 9)]


def test_documents_that_would_be_written_too_late_are_rendered_again(write: Callable[[Slow, float], Outcome]) -> None:
    sink = Slow(5.0)
    out = write(sink, 4.0)
    assert not sink.writes and sorted(out.retry) == [f"{number}|{ROOT_PARTIAL}" for number in range(9)]
    assert "pipeline.max_age" in out.retry_reason
