"""The sink that combines partials: a document is not written later than its partials may be old."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from syncer.clock import version
from syncer.document import Batch, Outcome
from syncer.pipeline import combine
from syncer.pipeline.combine import ROOT_PARTIAL, CombiningSink
from syncer.ports import DurabilityToken, StoredPartial, StoredPartials


class Slow:
    """A sink that stores partials. Each write of documents takes a second. clock: seconds."""

    name, in_place = "slow", False

    def __init__(self) -> None:
        self.clock = 0.0
        self.partials: dict[str, dict[str, StoredPartial]] = {}
        self.written: list[str] = []
        self.timeouts: list[float] = []

    def write_partials(
        self, version: int, partials: Mapping[str, Mapping[str, bytes | None]], timeout: float
    ) -> StoredPartials:
        for id, parts in partials.items():
            known = self.partials.setdefault(id, {})
            known |= {bucket: StoredPartial(version, body) for bucket, body in parts.items()}
        return {id: self.partials[id] for id in partials}

    def read_partials(self, ids: Sequence[str]) -> StoredPartials:
        return {id: self.partials[id] for id in ids}

    def partial_ids(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self.clock += 1.0
        self.timeouts.append(timeout)
        self.written += batch.ids()
        return Outcome(deleted=len(batch.deletes))

    def durability(self) -> DurabilityToken:
        return DurabilityToken("", "")


def test_documents_that_would_be_written_too_late_are_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, partials = Slow(), SimpleNamespace(parts=SimpleNamespace(key=("id", "bucket")), fields=())
    monkeypatch.setattr(combine, "time", SimpleNamespace(monotonic=lambda: sink.clock))
    combined = CombiningSink(sink, partials, "things")  # type: ignore[arg-type]
    for number in range(9):  # so that each document has a sum, and thus a request, of its own
        before: Any = {f"{number}|{bucket}": None for bucket in range(number)}
        sink.write_partials(version(1, 1), {str(number): {str(bucket): None for bucket in range(len(before))}}, 1.0)
    out = combined.write(Batch(version(1, 7), {}, [f"{n}|{ROOT_PARTIAL}" for n in range(9)]), timeout=4.5)
    assert len(sink.written) == 5 and all(left > 0 for left in sink.timeouts)
    assert sorted(out.retry) == sorted(f"{n}|{ROOT_PARTIAL}" for n in range(9) if str(n) not in sink.written)
    assert "pipeline.max_age" in out.retry_reason
