"""When a sink has to stop: what it finds was not built by this declaration, or not in this epoch.

An epoch above ours means that the record of our own epoch is lost (the versions that we would write are all
too small, and nothing would ever be written): only an operator's resync helps.
"""

from __future__ import annotations

from typing import NamedTuple

from syncer.clock import split_version
from syncer.declaration.compile import Compiled
from syncer.document import Outcome
from syncer.errors import Fatal, Retry


class Target(NamedTuple):
    """A sink as its errors name it, and what its documents are built from."""

    name: str
    model: str
    hash: str
    epoch: int
    generation: int

    @classmethod
    def of(cls, name: str, model: Compiled, epoch: int, generation: int) -> Target:
        return cls(name, model.name, model.hash, epoch, generation)

    @property
    def resync(self) -> str:
        """The command that builds the documents anew."""
        return f"syncer resync {self.model}"

    def meta(self) -> dict[str, str | int]:
        """What is recorded beside the documents."""
        return {"model": self.model, "hash": self.hash, "epoch": self.epoch, "generation": self.generation}

    def check_epoch(self, found: int, what: str) -> None:
        """Raises Fatal when `what` was found to be of a later epoch."""
        if found > self.epoch:
            raise Fatal(
                "holds documents of a later epoch; the record of our own is lost",
                where=self.name,
                why=f"{what} is of epoch {found}, ours is {self.epoch}",
                hint=self.resync,
            )

    def stale(self, id: str, given: int, found: int, out: Outcome) -> None:
        """Count a document that was not written, because the version that was found is not below ours.

        Raises Fatal when that one is of a later epoch.
        """
        epoch, _ = split_version(found)
        if epoch > self.epoch:
            self.check_epoch(epoch, f"document {id!r}, version {found},")
        out.stale += 1
        if found > given:
            out.newest_version = max(out.newest_version, found)

    def late(self, timeout: float, documents: int) -> Retry:
        """The error when a batch could not be written in time. within: the seconds that it had."""
        return Retry(
            f"it took longer than {timeout:.0f} s to write a batch of {documents:,} documents, so the rest is"
            " rendered again",
            where=self.name,
            why="nothing is written later than pipeline.max_age after its snapshot",
            hint="write less at a time (pipeline.chunk_documents), or raise pipeline.max_age",
        )

    def gone(self, what: str) -> Fatal:
        """The error when `what` was there once: made anew, it would lack every document but the next ones."""
        return Fatal(f"{what} is gone, and its documents with it", where=self.name, hint=self.resync)

    def check_hash(self, found: str) -> None:
        """Raises Fatal when the documents were built from another declaration."""
        if found != self.hash:
            raise Fatal(
                "was built from another declaration of the read model, or for another key of its root",
                where=self.name,
                why=f"hash {found}, ours is {self.hash}",
                hint=self.resync,
            )
