"""Decides when a sink has to stop: its target was built from another declaration, or holds a later epoch.

A later epoch in the target means that the syncer has lost its record of the current epoch. All versions that the syncer
would write are then too low, so the sink would refuse every write. Only a resync helps, and an operator has to start
it.
"""

from __future__ import annotations

from typing import NamedTuple

from syncer.clock import split_version
from syncer.declaration.compile import Compiled
from syncer.document import Outcome
from syncer.errors import Fatal, LaterEpoch, Retry
from syncer.quantities import counted


class Target(NamedTuple):
    """The name of a sink for its errors, and what its documents are built from."""

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
        """The command that rebuilds the documents."""
        return f"syncer resync {self.model}"

    def meta(self) -> dict[str, str | int]:
        """Returns what the sink records next to the documents."""
        return {"model": self.model, "hash": self.hash, "epoch": self.epoch, "generation": self.generation}

    def check_epoch(self, found: int, what: str) -> None:
        """Raises LaterEpoch if `what`, found in the target, belongs to a later epoch."""
        if found > self.epoch:
            raise LaterEpoch(
                "the target holds documents of a later epoch than the recorded one",
                where=self.name,
                why=f"{what} has epoch {found}, the state topic has epoch {self.epoch}",
                hint=self.resync,
            )

    def check_hash(self, found: str) -> None:
        """Raises Fatal if the documents in the target were built from another declaration."""
        if found != self.hash:
            raise Fatal(
                "the documents were built from another declaration or another primary key of the root table",
                where=self.name,
                why=f"the documents have hash {found}, the declaration has hash {self.hash}",
                hint=self.resync,
            )

    def stale(self, id: str, given: int, found: int, out: Outcome) -> None:
        """Counts a document that was not written because the target has the same or a newer version.

        given: the version of the write. found: the version in the target.
        Raises Fatal if the version in the target is of a later epoch.
        """
        epoch, _ = split_version(found)
        if epoch > self.epoch:
            self.check_epoch(epoch, f"document {id!r}, version {found},")
        out.stale += 1
        if found > given:
            out.newest_version = max(out.newest_version, found)

    def late(self, timeout: float, documents: int) -> Retry:
        """Returns the error for a batch that was not written within `timeout` seconds."""
        return Retry(
            f"writing a batch of {counted(documents, 'document')} took longer than {timeout:.0f} s; "
            "the rest is rendered again",
            where=self.name,
            why="nothing is written later than pipeline.max_age after its snapshot",
            hint="write less at a time (pipeline.chunk_documents), or raise pipeline.max_age",
        )

    def gone(self, what: str) -> Fatal:
        """Returns the error for a target that existed once and is missing.

        A new one would hold only the documents written from now on, so the sink must not create it.
        """
        return Fatal(f"{what} is missing, and so are its documents", where=self.name, hint=self.resync)
