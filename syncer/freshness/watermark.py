"""Computes the watermark of a read model: a snapshot whose transactions are in every sink. Pure.

A candidate is a snapshot S of PostgreSQL, with a message that was committed after it. It becomes the watermark when
these steps have succeeded, in this order:

    1 proof      Everything that committed before S is in Kafka (`proof.py`).
    2 basis      All work that has another cause than change events is in the work topics: altered tables, a resumed
                 connector, a sink that lost writes, the first backfill.
    3 changes    The ends of the change topics are read. All records before them are acknowledged by every sink.
    4 work       The ends of the work topics are read. All items before them are acknowledged.
    5 work       The same again: a sweep hands over its keys as further items.
    6 later      Later candidates have passed steps 1 to 5, one for each level of look-ups.
    7 confirm    Since step 2, the sinks have lost nothing and the tables were not altered. The generation is the same.

The order of the steps matters. If the ends of the change topics were read before the proof, they could lie before a
record that a slow broker has not acknowledged yet. If the ends of the work topics were read before the changes are
acknowledged, they could lie before work that these changes cause.

An alteration after the snapshot matters, too. If rows vanish without an event (DETACH PARTITION), a look-up in a later
snapshot no longer finds the documents that an earlier change made stale. They stay stale until all documents are
rendered again. The simulation found this case.

Step 6 is needed because a look-up runs in a snapshot V that is later than S. In S, a row links a changed row to a
root. In V, this row may have moved away. Then the look-up misses the root, and the root is rendered for the event of
the move. That event may lie after the ends of step 3. A candidate that was taken after step 3 sees all that V saw. So
its own steps include the move. The move may need a look-up, too, and a second move can outrun it. But each look-up
starts nearer to the root, and a row next to the root names it without a look-up. So `lookup_levels` later candidates
suffice. None is needed if all changes were acknowledged before S was taken: then no look-up ran later. The simulation
found this case, too.

Steps 3 to 5 compare positions, and need no answer from the lanes: the offset that a consumer group has reached never
goes back. Several candidates may be under way at once, so the watermark advances while a backlog is processed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from syncer.clock import Identity, Snapshot
from syncer.errors import ARROW, Retry
from syncer.freshness.candidates import ANY_READER, Acknowledged, Basis, Candidate, Confirmation, Pending
from syncer.ports import DurabilityToken, Partition, not_committed
from syncer.quantities import counted

__all__ = ["ANY_READER", "MOST", "Basis", "Candidate", "Confirmation", "Pending", "Tracker", "Watermark"]

MOST = 300
"""Candidates of one read model that are under way at once. Some 70 to 90 are, however long a backlog is."""
_SPACING = 20
"""A candidate begins if the last one is older than this part of the age of the first one."""


class Watermark(NamedTuple):
    """The effect of every transaction that `snapshot` sees is in every sink of the read model.

    Documents with an open dead letter are excluded.
    """

    generation: int
    identity: Identity
    snapshot: Snapshot
    floor_lsn: int
    """See `Candidate`."""
    taken_ms: int
    """See `Candidate`. The time now minus this time is the greatest age that a document can have."""

    @property
    def clock(self) -> int:
        return self.snapshot.clock


@dataclass(slots=True)
class Tracker:
    """The watermark of one read model in one process. For one thread."""

    model: str
    watermark: Watermark | None = None
    switch: Retry | None = None
    """Why nobody can wait for a watermark of this generation: a resync is switching readers. None if it is not."""
    reason: str = "no candidate has been proved yet"
    """Why the last candidate did not become the watermark, or what it waits for. Empty if it became the watermark."""
    acknowledged: Acknowledged = field(default_factory=Acknowledged)
    """What has been acknowledged, as far as the candidates have shown."""
    _acknowledged_before: Acknowledged = field(default_factory=Acknowledged)
    """What had been acknowledged when the last candidate was taken."""
    _pending: list[Pending] = field(default_factory=list)
    _asking: bool = False
    """Whether the facts of step 7 were asked for, and have not come yet."""

    def add(self, candidate: Candidate, basis: Basis, ends: Mapping[Partition, int]) -> None:
        """Begins with a proved candidate. ends: of the change topics, read after the proof; basis: read before them."""
        if self._switches(basis.switch):
            return
        self._reset_unless(basis.generation)
        if refused := self._refuse(candidate, basis):
            self.reason = refused
            return
        if self._pending and self._too_close(candidate):
            return
        if len(self._pending) >= MOST:  # PostgreSQL's clock was set back
            self._pending.clear()
        before = candidate.acknowledged.get(self.model, Acknowledged())
        self._pending.append(Pending(candidate, basis, ends, before, ends))

    def _too_close(self, candidate: Candidate) -> bool:
        """Whether the last candidate is too recent for another one.

        A candidate that has begun is never dropped. It waits for its own changes, and then for a later one, which
        has to survive as long. So the distance grows with the age of the first one.
        """
        first, last = self._pending[0].candidate.taken_ms, self._pending[-1].candidate.taken_ms
        return 0 <= (candidate.taken_ms - last) * _SPACING < candidate.taken_ms - first

    def taken(self) -> Acknowledged:
        """Call this before a candidate is taken. Returns its `acknowledged` for this read model."""
        self._acknowledged_before = self.acknowledged
        return self.acknowledged

    def clear(self, reason: str) -> None:
        """Forgets the watermark: the stream broke, the read model stopped, or readers switch to another generation."""
        self.watermark, self.reason, self.acknowledged = None, reason, Acknowledged()
        self._pending.clear()

    @property
    def pending(self) -> bool:
        """Whether a candidate is under way that can advance without a later one."""
        return any(one.ready or not one.acknowledged for one in self._pending)

    @property
    def needs_candidate(self) -> bool:
        """Whether a candidate waits for a later one, and none was taken since its changes were acknowledged."""
        return self.acknowledged != self._acknowledged_before and any(
            one.acknowledged and not one.ready for one in self._pending
        )

    @property
    def waits_for(self) -> dict[Partition, int]:
        """Returns the highest offset of each partition that a candidate waits for."""
        found: dict[Partition, int] = {}
        for one in self._pending:
            for partition, end in (one.ends or {}).items():
                found[partition] = max(end, found.get(partition, 0))
        return found

    @property
    def needs_positions(self) -> bool:
        return any(one.ends is not None for one in self._pending)

    @property
    def needs_work_ends(self) -> bool:
        return any(one.ends is None and not one.acknowledged for one in self._pending)

    @property
    def needs_confirmation(self) -> bool:
        """Whether the facts of step 7 are needed. True until they come: later candidates must not get old facts."""
        return self._asking or any(one.ready for one in self._pending)

    def positions(self, acknowledged: Mapping[Partition, int]) -> None:
        """Steps 3 to 5. acknowledged: partition → the next offset after the records that every sink acknowledged."""
        for one in self._pending:
            if one.ends is None:
                continue
            if left := not_committed(one.ends, acknowledged):
                self.reason = _waits_for(left)
                continue
            if one.work == 0:
                self._settle(one)
            one.ends, one.acknowledged = None, one.work == 2
        self._count_followers()

    def _settle(self, one: Pending) -> None:
        """Notes that the changes of a candidate have been acknowledged."""
        generation, known = one.basis.generation, self.acknowledged
        ends = known.ends if known.generation == generation else {}
        further = {p: end for p, end in one.changes.items() if end > ends.get(p, -1)}
        if further or known.generation != generation:
            self.acknowledged = Acknowledged(generation, {**ends, **further})

    def _count_followers(self) -> None:
        """Step 6. The first candidate that follows another one has the most followers itself, so it counts."""
        for n, one in reversed(list(enumerate(self._pending))):
            if not one.acknowledged:
                continue
            if one.follows(one):
                one.followers = one.basis.lookup_levels  # no look-up ran after it was taken
                continue
            later = (other for other in self._pending[n + 1 :] if other.acknowledged and other.follows(one))
            if follower := next(later, None):
                one.followers = max(one.followers, follower.followers + 1)
            if not one.ready:
                self.reason = "waits for a later snapshot: rows may have moved away before they were looked up"

    def work_ends(self, ends: Mapping[Partition, int]) -> None:
        """Steps 4 and 5. ends: of the work topics, read after `needs_work_ends` was true."""
        for one in self._pending:
            if one.ends is None and not one.acknowledged:
                one.ends, one.work = ends, one.work + 1

    def ask(self) -> None:
        """Begins step 7, unless it has begun. The facts are read after this call.

        Candidates that are acknowledged later need further facts: a sink that answers slowly may have lost their writes
        after it gave its token.
        """
        if not self._asking:
            self._asking = True
            for one in self._pending:
                one.asked = one.ready

    def confirm(self, now: Confirmation) -> Watermark | None:
        """Step 7. now: read after `ask`. Returns the watermark if it advanced."""
        self._asking = False
        if self._switches(now.switch):
            return None
        self._reset_unless(now.generation)
        done = [one for one in self._pending if one.asked]
        self._pending = [one for one in self._pending if not one.asked]
        for one in reversed(done):
            if one.basis.tables != now.tables:
                self.reason = "tables were altered: the work that follows is not scheduled yet"
            elif lost := _lost(one.basis.tokens, now.tokens):
                if _lost(one.basis.tokens, now.tokens, documents=True):
                    self.watermark = None  # the lost documents may have been written before it
                self.reason = f"{lost} may have lost writes: the repair is not finished"
            else:
                return self._advance(one)
        return None

    def _advance(self, one: Pending) -> Watermark:
        found = one.candidate
        self.watermark = Watermark(
            one.basis.generation, found.identity, found.snapshot, found.floor_lsn, found.taken_ms
        )
        self.reason = ""
        self._pending = [other for other in self._pending if other.candidate.taken_ms > found.taken_ms]
        return self.watermark

    def _switches(self, switch: Retry | None) -> bool:
        self.switch = switch
        if switch:
            self.clear(switch.detail.split(ARROW)[0])
        return switch is not None

    def _reset_unless(self, generation: int) -> None:
        known = [one.basis.generation for one in self._pending]
        if self.watermark:
            known.append(self.watermark.generation)
        if any(other != generation for other in known):
            self.clear(f"generation {generation} has no watermark yet")

    def _refuse(self, candidate: Candidate, basis: Basis) -> str:
        if candidate.stream != basis.stream:
            return "changes were lost since the read model began"
        if not basis.complete:
            return "the first backfill has not finished"
        if candidate.tables.get(self.model) != basis.tables:
            return "tables were altered: the work that follows is not scheduled yet"
        if basis.reader is not ANY_READER and candidate.reader != basis.reader:
            return "the connector resumed: its repair is not scheduled yet"
        return ""


def _waits_for(left: Mapping[Partition, tuple[int, int]]) -> str:
    topic, number = max(left, key=lambda partition: left[partition][1] - left[partition][0])
    records = sum(end - first for first, end in left.values())
    where = f"partition {number} of topic {topic}"
    return counted(
        records,
        f"record is not in every sink yet, in {where}",
        f"records are not in every sink yet, most of them in {where}",
    )


def _lost(before: Mapping[str, DurabilityToken], now: Mapping[str, DurabilityToken], *, documents: bool = False) -> str:
    """Returns the name of a sink that may have lost something since `before`; empty if there is none.

    documents: count only documents, not tombstones of deletes.
    """
    for name, token in now.items():
        known = before.get(name)
        if known is None or known.documents != token.documents or (not documents and known[:2] != token[:2]):
            return name
    return ""
