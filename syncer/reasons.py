"""Why a read model waits, written down for `syncer status`, which may be asked where no daemon is reached.

Only what lasts is written, and that it has ended only once that lasts: a sink that is busy for a moment is no
news, and each record stays in a topic that every process reads. What is written holds for three minutes, and
is written again while it lasts; so a process that was killed does not wait for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_LASTS = 4.5  # seconds; looks come every five
_AGAIN = 60.0
_HOLDS_MS = 180_000
_NUMBER = re.compile(r"\d+")


class Reasons:
    """Of one read model in one process.

    save: writes a value down; raises whatever it does, and is then called again with the next look.
    """

    def __init__(self, save: Callable[[Mapping[str, Any]], None]) -> None:
        self._save = save
        self._waits, self._since = False, 0.0
        self._written, self._at = "", 0.0

    def look(self, reason: str, now: float, now_ms: int) -> None:
        """reason: why it waits at this moment; empty when it does not. now: seconds of a clock that only
        grows. now_ms: since the epoch."""
        if bool(reason) != self._waits:
            self._waits, self._since = bool(reason), now
        if now - self._since < _LASTS:
            return
        told = _NUMBER.sub("", reason)  # one that tells how long it has lasted is not another one each time
        if told == self._written and (not told or now - self._at < _AGAIN):
            return
        self._save({"reason": reason, "at_ms": now_ms} if reason else {})
        self._written, self._at = told, now

    def end(self) -> None:
        """Nobody waits any more."""
        if self._written:
            self._save({})
            self._written = ""


def written(value: Mapping[str, Any], now_ms: int) -> str:
    """The reason, if it still holds."""
    return str(value["reason"]) if value and now_ms - value["at_ms"] < _HOLDS_MS else ""
