"""Adapts the size of bulk requests to the load of the server.

The size is halved when the server had too much to do, and grows by a sixteenth with each accepted request. So most
answers are good ones, whatever size the server can handle.

It decides how many bytes are sent at once, never which documents. Rejected documents are rendered again. No I/O.
"""

from __future__ import annotations

_FLOOR = 64 << 10


class BulkSize:
    """A number of bytes between a floor and `most`. Threads may race; then a step is lost, nothing else."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = most

    def accepted(self, size: int) -> None:
        """Grows after a request of `size` bytes was accepted. Small requests say nothing about larger ones."""
        if size > self.bytes // 2:
            self.bytes = min(self.most, self.bytes + self.bytes // 16 + 1)

    def rejected(self, size: int) -> None:
        """Shrinks after a request of `size` bytes was too large, or took too long."""
        self.bytes = max(min(_FLOOR, self.most), min(self.bytes, size) // 2)
