"""A sink that refuses documents: a few bad ones always, and all of them while its mapping is broken.

A world has refusals only if the caller asks for them. They have rounds of their own, so the seeds of the
others stay what they are. There, the promise is: once the mapping is fixed and the letters are replayed,
every document that the sink takes is what the database says, and each other one has a letter.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncer.pipeline.circuit_breaker import Noted
from syncer.ports import Record
from tests.simulation.history import History

LIMIT = 2
"""Documents in a row: a schedule has two or three."""


class Refusals:
    """What the sink refuses at this moment, and the letters about it. broken: nothing fits the mapping."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.broken = False
        self.letters: dict[str, int] = {}
        """Document → the highest version that was refused, while its letter is open."""
        self.noted: Noted = {}
        """The open breakers, in the state topic."""

    def kind(self, body: bytes | None) -> str:
        """The type of the error, or empty: a document is bad for good if its note is a multiple of five."""
        if body is None:
            return ""
        if self.broken:
            return "mapping"
        return "bad" if int(body.split(b" ", 1)[0]) % 5 == 0 else ""

    def note(self, value: Noted) -> None:
        self.history.seen["a breaker opened" if value else "a breaker closed"] += 1
        self.history.tell("breaker", "is %s", dict(value) or "closed")
        self.noted = value


class Letters:
    """`ports.DeadLetters` over these, durable at once."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    def document(self, id: str, version: int, reason: str) -> None:
        letters, history = self._refusals.letters, self._refusals.history
        letters[id] = max(version, letters.get(id, 0))
        history.seen["a dead letter"] += 1
        history.tell("letters", "order %s has a dead letter: %s", id, reason)

    def record(self, record: Record, reason: str) -> None:
        raise AssertionError(f"every record can be read here: {reason}")

    def accepted(self, ids: Iterable[str], version: int) -> None:
        letters = self._refusals.letters
        for id in ids:
            if letters.get(id, version + 1) <= version:
                del letters[id]

    def flush(self) -> None:
        """Nothing is on its way."""
