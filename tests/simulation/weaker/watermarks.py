"""Weaker rules of the watermark. With each of them, a reader sees a document that is older than the watermark says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from syncer.freshness.proof import Proof
from syncer.freshness.watermark import ANY_READER, Basis, Candidate, Confirmation, Tracker
from syncer.ports import Partition, not_committed
from syncer.postgres.fingerprint import Fingerprint
from tests.simulation.freshness import Evidence, Measurement
from tests.simulation.weaker.rule import Weaker

_basis, _acknowledged = Evidence.basis, Evidence.acknowledged
_refuse = Tracker._refuse


def arrived_is_proved(self: Proof, reader: object) -> Candidate | None:
    found = [self._waiting.pop(number) for number in list(self._waiting) if number <= self._arrived]
    return next((one for one in reversed(found) if one.reader == reader), None)


arrived_is_ready: Any = property(lambda self: any(number <= self._arrived for number in self._waiting))


def any_reader_at_the_proof(self: Proof, reader: object) -> Candidate | None:
    done = [number for number, one in self._waiting.items() if number <= self._arrived and one.lsn <= self._lsn]
    found = [self._waiting.pop(number) for number in done]
    return found[-1] if found else None


def ends_before_proof(self: Measurement) -> dict[Partition, int]:
    return self.before_proof


def stable_ends(self: Measurement) -> dict[Partition, int]:
    return self.topics.stable_ends()


def ignores_missing_messages(self: Measurement) -> None:
    """Goes on as if nothing were missing."""


def any_reader(self: Evidence) -> Basis:
    return _basis(self)._replace(reader=ANY_READER)


without_later_candidates: Any = property(lambda self: self.acknowledged)


def before_the_backfill(self: Evidence) -> Basis:
    return _basis(self)._replace(complete=True)


def any_tables(self: Tracker, candidate: Candidate, basis: Basis) -> str:
    return _refuse(self, candidate, basis._replace(tables=candidate.tables[self.model]))


def work_once(self: Tracker, acknowledged: Mapping[Partition, int]) -> None:
    for one in self._pending:
        if one.ends is not None and not not_committed(one.ends, acknowledged):
            if one.work == 0:
                self._settle(one)
            one.ends, one.acknowledged = None, one.work == 1
    self._count_followers()


def own_partitions(self: Evidence, ends: Mapping[Partition, int]) -> Mapping[Partition, int]:
    own = {partition for source in self.process.sources for partition in source.at}
    return {p: offset if p in own else ends.get(p, 0) for p, offset in {**ends, **_acknowledged(self, ends)}.items()}


def any_tokens(self: Evidence, read_tables: Callable[[Fingerprint], str]) -> Confirmation:
    return Confirmation(1, None, self.tables_now(), dict(self.basis().tokens))


def tables_of_the_snapshot(self: Evidence) -> str:
    return str(self.world.stored.shape)


def _watermark(wrong: str, patches: Mapping[tuple[type, str], Any], first: int = 0) -> Weaker:
    """Candidates wait for no later ones, because that also hides most other faults."""
    return Weaker(wrong, patches, watermarks=True, lookup_levels=0, first=first)


RULES = {
    "the watermark's message proves the changes": _watermark(
        "a slower broker has not acknowledged an earlier change yet",
        {(Proof, "proved"): arrived_is_proved, (Proof, "ready"): arrived_is_ready},
    ),
    "ends before the proof": _watermark(
        "a change arrives between the ends and the proof",
        {(Measurement, "ends_after_proof"): ends_before_proof},
    ),
    "last stable offsets": _watermark(
        "a change is in the log, and the marker of its transaction is missing",
        {(Measurement, "_change_ends"): stable_ends},
    ),
    "a slot that was created again": _watermark(
        "the changes in the part of the log that was skipped never arrive",
        {(Measurement, "broken"): ignores_missing_messages},
    ),
    "a watermark before the repair of a resume": _watermark(
        "rows that the connector lost are not rendered again yet",
        {(Evidence, "basis"): any_reader},
        first=780,
    ),
    "a resume between snapshot and proof": _watermark(
        "the connector lost rows of a transaction that the snapshot sees",
        {(Proof, "proved"): any_reader_at_the_proof},
        first=6300,
    ),
    "a DETACH without events": _watermark(
        "rows vanished, and the documents are not rendered again yet",
        {
            (Tracker, "_refuse"): any_tables,
            (Evidence, "tables_now"): tables_of_the_snapshot,
        },
    ),
    "tables compared in the snapshot only": _watermark(
        "a look-up does not find documents whose rows vanished after the snapshot",
        {(Evidence, "tables_now"): tables_of_the_snapshot},
        first=7950,
    ),
    "work ends read once": _watermark(
        "a sweep handed over keys that no lane has rendered",
        {(Tracker, "positions"): work_once},
        first=15400,
    ),
    "partitions of one process": _watermark(
        "another process has not written its documents yet",
        {(Evidence, "acknowledged"): own_partitions},
    ),
    "a watermark before the first backfill": _watermark(
        "a document was not rendered yet",
        {(Evidence, "basis"): before_the_backfill},
        first=7200,
    ),
    "a watermark after a sink's loss": _watermark(
        "the sink lost documents, and they are not rendered again yet",
        {(Evidence, "confirmation"): any_tokens},
        first=2200,
    ),
}
