"""What every sink does: it writes documents, shows them, and says whether it may have lost writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from syncer.document import Batch, Outcome


class DurabilityToken(NamedTuple):
    """Opaque texts that change when a sink may have lost something it had acknowledged.

    Compare each text with the one read before. An unchanged text means that nothing was lost in between.
    """

    tombstones: str
    """Changes when the sink may have forgotten the versions of deletes. An older write can then succeed."""
    documents: str
    """Changes when the sink may have lost acknowledged writes."""
    written: str = ""
    """A high watermark of the writes, for `InspectableSink.ids`. Do not compare it. Empty: not supported."""


class WritableSink(Protocol):
    """A store of documents that keeps the highest version it was given for every id."""

    name: str
    """Kind and target, such as `elasticsearch:orders`. Logs and metrics use it as a label."""
    in_place: bool
    """Whether all generations share the documents. A resync then changes them while applications read them."""

    def prepare(self, *, new: bool = True) -> None:
        """Creates what is missing (index, alias) and refuses a target that was built from another declaration.

        Blocks. Idempotent. Several processes may call it at once.

        new: whether the whole target of this generation may be missing. If False, it existed once; then a missing
        target is an error.

        Raises Fatal with the command to run, and Retry when the server is unreachable.
        """
        ...

    def outgrown(self) -> list[str]:
        """Returns one sentence for each field that the target cannot store or search with today's column types.

        Blocks; changes nothing. The list is empty when all fields fit. A resync builds a target that fits. Until
        then each rejected document becomes a dead letter. Raises Retry when the server is unreachable.
        """
        ...

    def activate(self) -> list[str]:
        """Lets applications read this generation. Blocks. Idempotent.

        Returns the names of older generations that the syncer no longer updates. An operator can delete them.
        Raises Fatal and Retry as `prepare` does.
        """
        ...

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        """Writes each document unless the sink has the same or a newer version of it. A delete is a version too.

        Each document has the version `Batch.version_of`.

        timeout: seconds. The sink sends nothing after that and returns the rest in `retry`. The server may not
        hold a request longer than that either, for example while it waits for a shard.

        Blocks until the server has acknowledged. Idempotent: an equal version is counted as `stale`. Never
        retries. The caller renders the documents in `retry` again; it does not send them again. A document that
        fails does not affect the others: every id of the batch is counted once in the outcome.

        Raises Retry when the result of the whole batch is unknown, for example when the server is unreachable.
        Raises Fatal when the target is missing or belongs to a later epoch.
        """
        ...

    def close(self) -> None:
        """Closes the connections. Idempotent. Other methods must not be called after it."""
        ...


class InspectableSink(Protocol):
    """A store whose documents can be listed and read, for `syncer verify`, `repair` and sweeps.

    All methods block. They may be repeated, and they change no document. They raise Retry when the server is
    unreachable and Fatal when the target is missing.
    """

    name: str

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields the id of every document, in no order. An id may come twice.

        Documents that are written meanwhile may be missing.

        since: a `DurabilityToken.written`. Yields only the documents written later, if the sink supports it.
        """
        ...

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Returns id → document as JSON text. Ids without a document are left out."""
        ...

    def normalize(self, body: bytes) -> bytes | None:
        """Returns what `read` gives for a document that was written as `body`. Does not block.

        Returns None for a document that the sink never stores."""
        ...

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Returns id → the version that a write has to exceed, of documents and of remembered deletes.

        Ids without a version are left out, and so are documents that do not belong to the syncer. A later
        epoch is returned like any other version."""
        ...

    def count(self) -> int:
        """Returns the number of documents."""
        ...

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Returns those of these absent ids whose documents the sink removed because their time was over.

        ids: documents that `read` did not return. rendered: seconds since a backfill of all documents began.
        """
        ...


class DurableSink(Protocol):
    """A store that reports when it may have lost acknowledged writes or remembered deletes."""

    name: str

    def durability(self) -> DurabilityToken:
        """Returns the token of this moment. Changes nothing that applications can read.

        Blocks. Called every few seconds, concurrently with `write`.

        Raises Retry when the server cannot answer now (unreachable, shards not assigned). Raises Fatal when the
        target is missing, or when the server's settings allow it to lose documents.
        """
        ...


class Sink(WritableSink, InspectableSink, DurableSink, Protocol):
    """A sink with all three capabilities. Every sink of a read model has them. `ReorderingSink` is a fourth one.

    `PublishingSink`, `RememberingSink` and `SearchableSink` are optional. The syncer uses them if the sink has their
    methods.

    A function asks for the smallest of the three protocols that it needs. `docs/writing-a-sink.md` shows how to
    write a sink. The contract suite in `tests/contracts/` says what it must do.
    """


# -- the storage of the syncer itself -----------------------------------------------------------------
# A `Backend` makes the four ports below. `kafka/backend.py` is the first one. The packages above it use only these
# ports; `registry/backends.py` alone chooses a backend.
