"""The decisions of one schedule. Everything that may happen one way or another is asked of these.

A decision is a byte. Zero is always the calm answer: nobody is interrupted, nothing fails. So a schedule
gets simpler as bytes are left out or made zero, and that is how a failing one is made short (`shrink.py`).
"""

from __future__ import annotations

import hashlib

MOST = 260
"""Decisions of a schedule. What comes after them is calm."""


class Choices:
    """decisions: one after the other; when they are used up, every answer is the calm one."""

    __slots__ = ("at", "decisions", "end")

    def __init__(self, decisions: bytes) -> None:
        self.decisions = decisions
        self.at, self.end = 0, len(decisions)

    @property
    def used_up(self) -> bool:
        return self.at >= self.end

    def of(self, count: int) -> int:
        """0 to count − 1."""
        at = self.at
        if at >= self.end:
            return 0
        self.at = at + 1
        return self.decisions[at] * count >> 8

    def likely(self, in_256: int) -> bool:
        """True about so many times out of 256."""
        at = self.at
        if at >= self.end:
            return False
        self.at = at + 1
        return self.decisions[at] >= 256 - in_256

    def calm(self) -> None:
        """No more accidents."""
        self.end = 0


def decisions(seed: int) -> bytes:
    """The same for a seed on every machine and in every version of Python."""
    return hashlib.shake_128(b"%d" % seed).digest(MOST)
