"""Defines a candidate for the watermark, and the facts that decide whether it becomes the watermark. No I/O.

`watermark.py` has the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from syncer.clock import Identity, Snapshot
from syncer.errors import Retry
from syncer.ports import DurabilityToken, Partition, not_committed


class Acknowledged(NamedTuple):
    """All records of the change topics before these ends have been acknowledged by every sink of a generation."""

    generation: int = 0
    ends: Mapping[Partition, int] = {}

    def covers(self, generation: int, ends: Mapping[Partition, int]) -> bool:
        return self.generation == generation and not not_committed(ends, self.ends)


class Candidate(NamedTuple):
    """A snapshot that may become a watermark, and the facts that were read together with it."""

    identity: Identity
    snapshot: Snapshot
    floor_lsn: int
    """The insert LSN before the snapshot was taken, in bytes. The snapshot sees every transaction that had completed
    when the insert LSN was lower."""
    lsn: int
    """The insert LSN after the snapshot was taken. The commit of every transaction in the snapshot lies before it."""
    taken_ms: int
    """When it was taken, by PostgreSQL's clock; milliseconds since the Unix epoch."""
    reader: object
    """The process that reads the connector's slot; None if there is none."""
    stream: int
    """`registry.records.Stream.number` before it was taken."""
    tables: Mapping[str, str] = {}
    """Read model → the fingerprint of its tables in this snapshot."""
    acknowledged: Mapping[str, Acknowledged] = {}
    """Read model → what had been acknowledged before this snapshot was taken."""


class Basis(NamedTuple):
    """The facts about a read model that can make documents wrong without a change event.

    Each of them is saved only after the work that follows from it is durable. So if a candidate was taken under the
    facts of a basis, the work topics hold all of that work.
    """

    generation: int
    stream: int
    """The stream in which this generation began."""
    tables: str
    """The last fingerprint of the tables whose work is durable."""
    reader: object
    """The last reader of the slot whose work is durable. `ANY_READER` if resumes are not repaired."""
    complete: bool
    """Whether a backfill of this generation has finished."""
    tokens: Mapping[str, DurabilityToken]
    """Sink → the last token whose repair is durable."""
    lookup_levels: int
    """`Compiled.lookup_levels`."""
    switch: Retry | None = None
    """See `Confirmation`."""


ANY_READER = object()
"""The operator has switched the repair of resumes off."""


class Confirmation(NamedTuple):
    """The facts that must not have changed while a candidate was under way."""

    generation: int
    switch: Retry | None
    """Why readers may see another generation's documents: a resync switches readers, or writes in place. Else None."""
    tables: str
    """The fingerprint of the tables now."""
    tokens: Mapping[str, DurabilityToken]
    """Sink → its token now."""


@dataclass(slots=True, eq=False)
class Pending:
    """A candidate under way. ends: the ends that it waits for; None while they have to be read."""

    candidate: Candidate
    basis: Basis
    changes: Mapping[Partition, int]
    """The ends of the change topics."""
    before: Acknowledged
    """What had been acknowledged before the candidate was taken."""
    ends: Mapping[Partition, int] | None
    work: int = 0
    """How often the ends of the work topics were read."""
    acknowledged: bool = False
    """Whether steps 3 to 5 are done."""
    followers: int = 0
    """How many later candidates have passed steps 1 to 5, each of them taken after step 3 of the one before it."""
    asked: bool = False
    """Whether it was ready when the facts of step 7 were asked for."""

    @property
    def ready(self) -> bool:
        """Whether steps 3 to 6 are done."""
        return self.acknowledged and self.followers >= self.basis.lookup_levels

    def follows(self, other: Pending) -> bool:
        """Whether this candidate was taken after all changes of the other one had been acknowledged."""
        return self.before.covers(other.basis.generation, other.changes)
