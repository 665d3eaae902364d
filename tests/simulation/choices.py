"""The decisions of one schedule. Each event that may or may not happen consumes one.

A decision is a byte. Zero is always the calm answer: no actor is interrupted, and no request fails. So a schedule
gets simpler when bytes are removed or set to zero. `shrink.py` shortens a failing schedule in this way.
"""

from __future__ import annotations

import hashlib

MOST = 260
"""The number of decisions of a schedule. After them, every answer is calm."""


class Choices:
    """decisions: used one after the other. After the last one, every answer is calm."""

    __slots__ = ("at", "decisions", "end")

    def __init__(self, decisions: bytes) -> None:
        self.decisions = decisions
        self.at, self.end = 0, len(decisions)

    @property
    def used_up(self) -> bool:
        return self.at >= self.end

    def of(self, count: int) -> int:
        """Returns a number from 0 to count − 1."""
        at = self.at
        if at >= self.end:
            return 0
        self.at = at + 1
        return self.decisions[at] * count >> 8

    def likely(self, in_256: int) -> bool:
        """Returns true in about `in_256` of 256 cases."""
        at = self.at
        if at >= self.end:
            return False
        self.at = at + 1
        return self.decisions[at] >= 256 - in_256

    def calm(self) -> None:
        """Makes all later answers calm."""
        self.end = 0


def decisions(seed: int) -> bytes:
    """Returns the decisions of a seed. They are the same on every machine and in every version of Python."""
    return hashlib.shake_128(b"%d" % seed).digest(MOST)
