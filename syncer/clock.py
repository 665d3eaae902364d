"""The snapshot clock: which transactions a PostgreSQL snapshot sees, as one growing number.

For a snapshot s on a primary, `clock(s) = xmax - |xip|`. When a transaction completes it either leaves
`xip` or pushes `xmax` past it, so the clock strictly grows and never falls: equal clocks see the same
rows, and a smaller one sees a subset of what a larger one sees. That makes it a document version.
WAL positions and `xmax` alone do not have this property, and on a standby `xip` is empty, so there is
no clock there. `docs/architecture.md` has the argument, `tests/` the measurement.

Pure arithmetic; `postgres/snapshot_reader.py` reads the snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from syncer.errors import Fatal

EPOCH_SHIFT = 48
_XID_SPAN = 1 << 32
_XID_AHEAD = 1 << 30


class Snapshot(NamedTuple):
    """`pg_current_snapshot()`: 64-bit transaction ids (PostgreSQL manual, "Transaction ID and Snapshot")."""

    xmin: int
    xmax: int
    xip: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read PostgreSQL's `xmin:xmax:xip,xip,…`."""
        xmin, xmax, xip = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, xip.split(","))) if xip else frozenset())

    @property
    def clock(self) -> int:
        return self.xmax - len(self.xip)

    def widen(self, xid: int) -> int:
        """The 64-bit id of an event's 32-bit one: the largest congruent value below `xmax + 2^30`.

        An event can be ahead of the snapshot, but never by a quarter of the id space. Ids that are
        already wide (Debezium adds the slot's epoch) are reduced first: only the low half is certain.
        """
        limit = self.xmax + _XID_AHEAD
        low = xid % _XID_SPAN
        wide = (limit - 1) - ((limit - 1 - low) % _XID_SPAN)
        return wide if wide >= 0 else low

    def sees(self, xid: int) -> bool:
        """Whether the (widened) transaction has completed for this snapshot."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.xip)

    def unseen(self, xids: Iterable[int]) -> list[int]:
        """The gate: the transactions (32 or 64 bits) that this snapshot does not see yet, widened."""
        return [wide for wide in map(self.widen, xids) if not self.sees(wide)]


class Beginning(NamedTuple):
    """A snapshot from when a read model began, and PostgreSQL's clock then, in milliseconds. The backfill,
    which comes later, covers whatever was committed before."""

    snapshot: Snapshot
    now_ms: int

    def covers(self, xid: int, committed_ms: int) -> bool:
        """Whether a transaction had ended by then. The time is asked, too: ids of 32 bits wrap."""
        return committed_ms <= self.now_ms and self.snapshot.sees(self.snapshot.widen(xid))


class Identity(NamedTuple):
    """Which history the clock belongs to. Another one needs another epoch."""

    system: int
    timeline: int

    def __str__(self) -> str:
        return f"system {self.system}, timeline {self.timeline}"


class Clock:
    """The guard: turns snapshots into versions, and stops when the clock can no longer be trusted.

    epoch: 1 and up; raised by `syncer resync`.
    identity, highest: the history and the highest clock seen so far (None and 0 for a new read model).
    backwards: told that the clock ran backwards, before that is raised. It has to be remembered: the clock
    grows, and looks sound again once it is past `highest`. (Another identity stays another.)
    Shared by the threads of one read model; assignments to `highest` may race, which only lowers it.
    """

    def __init__(
        self,
        epoch: int,
        identity: Identity | None = None,
        highest: int = 0,
        *,
        backwards: Callable[[Fatal], None] = lambda _: None,
    ) -> None:
        self.epoch = epoch
        self.identity = identity
        self.highest = highest
        self._backwards = backwards

    def version(self, identity: Identity, clock: int, *, floor: int, model: str) -> int:
        """The document version of a snapshot, `epoch << 48 | clock`.

        floor: `highest` as it was before the snapshot was taken; another thread may have raised it since.
        Raises Fatal when the server's history changed or its clock ran backwards (failover,
        point-in-time restore, another server under the same name).
        """
        if self.identity is not None and identity != self.identity:
            raise Fatal(
                "the PostgreSQL server has another history than the documents were rendered from",
                where=model,
                why=f"was {self.identity}, is {identity}",
                hint=_resync(model),
            )
        if clock < floor:
            error = ran_backwards(model, f"was {floor}, is {clock}")
            self._backwards(error)
            raise error
        self.identity = identity
        return version(self.epoch, clock)

    def durable(self, clock: int) -> None:
        """What a snapshot of this clock saw is on disk. Not before: a crash takes back what was not (aborts
        are never waited for), and a clock that falls for that reason is no other history."""
        self.highest = max(self.highest, clock)


def ran_backwards(model: str, why: str) -> Fatal:
    """This server has lost what documents were rendered from."""
    what = "the snapshot clock of PostgreSQL ran backwards (restored or failed over?)"
    return Fatal(what, where=model, why=why, hint=_resync(model))


def _resync(model: str) -> str:
    return f"if this server is the right one now: syncer resync {model}"


def version(epoch: int, clock: int) -> int:
    """A positive 64-bit integer that orders documents, as Elasticsearch's external versions want it."""
    if not 0 < epoch < 1 << 15 or not 0 <= clock < 1 << EPOCH_SHIFT:
        raise Fatal(f"no version can hold epoch {epoch} and clock {clock}")
    return epoch << EPOCH_SHIFT | clock


def split_version(value: int) -> tuple[int, int]:
    """The (epoch, clock) of a version."""
    return value >> EPOCH_SHIFT, value & (1 << EPOCH_SHIFT) - 1
