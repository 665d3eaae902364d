"""Adapts the size of bulk requests to the load of the server.

The size is halved when the server had too much to do, and grows by a sixteenth with each accepted request. So the
server accepts most requests, whatever size it can handle.

It decides how many bytes are sent at once, never which documents. Rejected documents are rendered again. No I/O.
"""

from __future__ import annotations

_FLOOR = 64 << 10
_MAX_CONTENT = 100 << 20  # bytes; the default of http.max_content_length


class BulkSize:
    """A number of bytes between a floor and `limit`. Threads may race; then a step is lost, nothing else."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = limit
        self.largest = _MAX_CONTENT
        """The server accepts no larger request."""

    def accepted(self, size: int) -> None:
        """Grows after a request of `size` bytes was accepted. Small requests say nothing about larger ones."""
        if size > self.bytes // 2:
            self.bytes = min(self.limit, self.bytes + self.bytes // 16 + 1)

    def rejected(self, size: int) -> None:
        """Shrinks after a request of `size` bytes was too large, or took too long."""
        self.bytes = max(min(_FLOOR, self.limit), min(self.bytes, size) // 2)
