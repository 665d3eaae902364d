"""The snapshot clock: one growing number for the set of transactions that a PostgreSQL snapshot sees.

For a snapshot s on a primary, `clock(s) = xmax - |xip|`. A transaction that completes either leaves `xip` or pushes
`xmax` past its id. Both raise the clock, and nothing lowers it. So two snapshots with equal clocks see the same
rows. A snapshot with a lower clock sees a subset of the transactions of a later one. This makes the clock a document
version.

WAL positions and `xmax` alone do not have this property. A standby has no clock, because `xip` is empty there.
`docs/guarantees.md` has the argument, `tests/` the measurement.

Pure arithmetic. `postgres/snapshot_reader.py` reads the snapshots.
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
        """Parses PostgreSQL's text `xmin:xmax:xip,xip,…`."""
        xmin, xmax, xip = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, xip.split(","))) if xip else frozenset())

    def __str__(self) -> str:
        """Returns the text that `parse` reads."""
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.xip)))}"

    @property
    def clock(self) -> int:
        """The number of transaction ids below `xmax` that are not in progress."""
        return self.xmax - len(self.xip)

    def widen(self, xid: int) -> int:
        """Returns the 64-bit id for an event's 32-bit id: the largest congruent value below `xmax + 2^30`.

        An event can be ahead of the snapshot, but never by a quarter of the id space. Debezium adds the slot's
        epoch to some ids, which makes them 64 bits wide. Only the low 32 bits are certain, so the rest is cut off.
        """
        limit = self.xmax + _XID_AHEAD
        low = xid % _XID_SPAN
        wide = (limit - 1) - ((limit - 1 - low) % _XID_SPAN)
        return wide if wide >= 0 else low

    def sees(self, xid: int) -> bool:
        """Whether this snapshot sees a transaction as completed. xid: 64 bits."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.xip)

    def unseen(self, xids: Iterable[int]) -> list[int]:
        """Returns the transactions that this snapshot does not see yet, as 64-bit ids. xids: 32 or 64 bits."""
        return [wide for wide in map(self.widen, xids) if not self.sees(wide)]


class Beginning(NamedTuple):
    """A snapshot of the moment when a read model began. The backfill is later, so it covers all earlier commits.

    now_ms: PostgreSQL's time then, in milliseconds since the Unix epoch.
    """

    snapshot: Snapshot
    now_ms: int

    def covers(self, xid: int, committed_ms: int) -> bool:
        """Whether a transaction had ended by then. Compares the time, too, because 32-bit ids wrap around."""
        return committed_ms <= self.now_ms and self.snapshot.sees(self.snapshot.widen(xid))


class Identity(NamedTuple):
    """The history that a clock belongs to. Clocks of two histories cannot be compared, so each has its epoch."""

    system: int
    timeline: int

    def __str__(self) -> str:
        return f"system {self.system}, timeline {self.timeline}"


class Clock:
    """Turns snapshots into versions. Raises Fatal when the clock cannot be trusted any more.

    epoch: 1 and up. `syncer resync` raises it.
    identity, highest: the history and the highest clock so far (None and 0 for a new read model).
    backwards: called before the Fatal for a clock that ran backwards. It has to store this fact: the clock grows
        again, and once it is past `highest` the loss cannot be detected. (A different identity stays different.)

    The threads of one read model share a `Clock`. Their assignments to `highest` may race, which only lowers it.
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
        """Returns the document version of a snapshot, `epoch << 48 | clock`.

        floor: the value of `highest` before the snapshot was taken. Another thread may have raised it since.
        Raises Fatal if the server's history changed or its clock ran backwards. This happens after a failover, a
        point-in-time restore, or when another server has the same name.
        """
        if self.identity is not None and identity != self.identity:
            raise Fatal(
                "the PostgreSQL server has another history than the one that the documents were rendered from",
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
        """Raises `highest` to the clock of a snapshot, after WAL is flushed up to it.

        An earlier call would be wrong: a crash takes back transactions that are not flushed. The clock falls then,
        but the history is the same. (PostgreSQL never waits for the flush of an abort.)
        """
        self.highest = max(self.highest, clock)


def ran_backwards(model: str, why: str) -> Fatal:
    """Returns the error for a server that has lost transactions which documents were rendered from."""
    return Fatal(
        "the snapshot clock of PostgreSQL ran backwards (restored or failed over?)",
        where=model,
        why=why,
        hint=_resync(model),
    )


def _resync(model: str) -> str:
    return f"if this server is the right one now: syncer resync {model}"


def version(epoch: int, clock: int) -> int:
    """Returns a positive 64-bit integer that orders documents, as Elasticsearch's external versions require."""
    if not 0 < epoch < 1 << 15 or not 0 <= clock < 1 << EPOCH_SHIFT:
        why = "the version of a document has 15 bits for the epoch and 48 bits for the clock"
        raise Fatal(f"the epoch {epoch} or the snapshot clock {clock} is out of range", why=why)
    return epoch << EPOCH_SHIFT | clock


def split_version(value: int) -> tuple[int, int]:
    """Returns the epoch and the clock of a version."""
    return value >> EPOCH_SHIFT, value & (1 << EPOCH_SHIFT) - 1
