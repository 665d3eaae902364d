"""A sink that refuses documents: always a few bad ones, and all of them while its mapping is broken.

A world has refusals only if the caller requests them. Their rounds are separate, so the seeds of the other rounds stay
valid. In these rounds the promise is: once the mapping is fixed and the letters are replayed, each document that the
sink accepts equals the database, and each other document has a letter.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncer.pipeline.circuit_breaker import SavedBreakers
from syncer.ports import Record
from tests.simulation.history import History

LIMIT = 2
"""Refused documents in a row that open the breaker. A schedule has two or three documents."""


class Refusals:
    """The documents that the sink refuses now, and the dead letters. broken: whether the mapping fits no document."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.broken = False
        self.letters: dict[str, int] = {}
        """The open letters: id of the document → the highest version that was refused."""
        self.stored: SavedBreakers = {}
        """The open breakers that are stored in the state topic."""

    def kind(self, body: bytes | None) -> str:
        """Returns the type of the error, or an empty text.

        A document is always bad if its note is a multiple of five.
        """
        if body is None:
            return ""
        if self.broken:
            return "mapping"
        return "bad" if int(body.split(b" ", 1)[0]) % 5 == 0 else ""

    def note(self, value: SavedBreakers) -> None:
        self.history.seen["a breaker opened" if value else "a breaker closed"] += 1
        self.history.log("breaker", "is %s", dict(value) or "closed")
        self.stored = value


class Letters:
    """`ports.DeadLetters`. Its letters are durable at once."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    def document(self, id: str, version: int, reason: str) -> None:
        letters, history = self._refusals.letters, self._refusals.history
        letters[id] = max(version, letters.get(id, 0))
        history.seen["a dead letter"] += 1
        history.log("letters", "order %s has a dead letter: %s", id, reason)

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(f"every record can be read here: {reason}")

    def accepted(self, ids: Iterable[str], version: int) -> None:
        letters = self._refusals.letters
        for id in ids:
            if letters.get(id, version + 1) <= version:
                del letters[id]

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        """The documents here are not combined from partials."""

    def flush(self) -> None:
        """All letters are durable."""
