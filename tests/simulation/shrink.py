"""Shortens a failing schedule: removes decisions, or makes them calm, as long as the schedule still fails.

Zero is the calm answer to every question (`choices.py`). So the remaining decisions are those that the failure needs.
"""

from __future__ import annotations

from collections.abc import Callable


def shrink(decisions: bytes, fails: Callable[[bytes], bool], tries: int = 4000) -> bytes:
    """Returns the shortest decisions found. fails: returns whether a schedule with these decisions still fails."""
    left = tries

    def better(candidate: bytes) -> bool:
        nonlocal left
        left -= 1
        return candidate != decisions and left > 0 and fails(candidate)

    size = len(decisions)
    while size and left > 0:
        before = decisions
        at = 0
        while at < len(decisions) and left > 0:
            without = decisions[:at] + decisions[at + size :]
            calmed = decisions[:at] + bytes(len(decisions[at : at + size])) + decisions[at + size :]
            if better(without):
                decisions = without
            elif any(decisions[at : at + size]) and better(calmed):
                decisions = calmed
                at += size
            else:
                at += size
        if decisions == before or size > 1:
            size //= 2
    short = decisions.rstrip(b"\0")
    return short if fails(short) else decisions
