"""What the pipeline needs of the outside world: three tiny protocols, and nothing more.

An implementation is one file under `sources/`, `rows/` or `sinks/`, and passes the contract suite of its
port in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from syncer.change import Key, Position
from syncer.clock import Identity, Snapshot
from syncer.compile import Lookup
from syncer.document import Batch, Outcome, Row


class Record(NamedTuple):
    """One record as the source has it; `decode.py` reads it."""

    position: Position
    key: bytes | None
    value: bytes | None


class Source(Protocol):
    """An ordered, replayable stream, shared by a consumer group."""

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        """Return what is there, at once if anything is; wait at most `timeout` seconds otherwise.

        Raises Retry when the source is away, Fatal when it no longer has what comes next.
        """
        ...

    def commit(self, next_offsets: Mapping[tuple[str, int], int]) -> None:
        """Everything before these offsets (by topic and partition) is done. Idempotent; may be late."""
        ...

    def close(self) -> None: ...


class Head(NamedTuple):
    """What the first statement of a batch's transaction says."""

    snapshot: Snapshot
    identity: Identity
    insert_lsn: int
    """`pg_current_wal_insert_lsn()`: what the snapshot sees was logged before this. Bytes."""
    catalog: str
    """A fingerprint of the read model's tables; another one means: compile again."""


class View(Protocol):
    """One REPEATABLE READ READ ONLY transaction: everything it answers is of one snapshot."""

    head: Head

    def look_up(self, lookup: Lookup, values: Collection[Key]) -> Collection[Key]:
        """The distinct root keys reached from these values."""
        ...

    def render(self, keys: Sequence[Key]) -> list[Row]:
        """One row for each key. Raises Reject (with several keys: of at least one of them)."""
        ...

    def render_range(self, low: Key | None, high: Key) -> list[Row]:
        """The same for every root with low < key <= high (low None: no lower bound)."""
        ...


class Rows(Protocol):
    """The database that says what is true."""

    def view(self) -> AbstractContextManager[View]:
        """Raises Retry when the server is away or a standby for the moment, Fatal when it refuses us."""
        ...

    def flushed(self, lsn: int) -> bool:
        """Whether the log is durable up to `lsn`."""
        ...

    def statuses(self, xids: Collection[int]) -> dict[int, str]:
        """`pg_xact_status` of transactions that stay invisible: `in progress`, `committed`, `aborted`,
        `in the future`."""
        ...


class Sink(Protocol):
    """A store of documents that keeps, for every id, the highest version it was given."""

    name: str
    """Its kind and target, e.g. `elasticsearch:orders`; a label in logs and metrics."""

    def prepare(self) -> None:
        """Create what is missing (index, alias), refuse what was built from another declaration. Idempotent.

        Raises Fatal naming the command to run; Retry when the server is away.
        """
        ...

    def write(self, batch: Batch) -> Outcome:
        """Write each document unless the sink has the same or a newer version of it.

        Blocks until the sink has acknowledged. One document's failure leaves the others alone. Never
        retries by itself: what it could not write it returns in `again`. Raises Retry when nothing can be
        known about the whole batch (server away), Fatal when the target is gone or from another epoch.
        """
        ...

    def ids(self) -> Iterator[str]:
        """The ids of all documents, in no order; those written meanwhile may be missing or not."""
        ...

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The documents of these ids as JSON text, for `verify`; absent ones are left out."""
        ...

    def close(self) -> None: ...
