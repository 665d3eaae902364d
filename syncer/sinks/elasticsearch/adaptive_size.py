"""How large a request may be: what the server took lately. Halved when it had too much to do, grown by a
sixteenth with each request that it takes; so most of its answers are good ones, at whatever size it can do.

It says how much is sent at once, never what: what was not taken is rendered again. No I/O.
"""

from __future__ import annotations

_FLOOR = 64 << 10


class BulkSize:
    """Between a floor and `most` bytes. Threads may race: a step is lost, no more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = most

    def took(self, size: int) -> None:
        """A request of so many bytes was done. Small ones say nothing of larger ones."""
        if size > self.bytes // 2:
            self.bytes = min(self.most, self.bytes + self.bytes // 16 + 1)

    def rejected(self, size: int) -> None:
        """A request of so many bytes was too much, or took too long."""
        self.bytes = max(min(_FLOOR, self.most), min(self.bytes, size) // 2)
