"""Values that describe how fresh the documents of a read model are, for `/status` and metrics."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from syncer.freshness.tokens import format_lsn
from syncer.freshness.watermark import Watermark


class Freshness(NamedTuple):
    """How fresh the documents of one read model are."""

    watermark: Watermark | None
    """None if there is none: the age is unknown."""
    seconds: float | None
    """The greatest age that a document can have, by the clock of PostgreSQL."""
    reason: str
    """Why the watermark did not advance last; empty if it did."""
    searchable: Watermark | None
    """The watermark that searches show, as of the last refresh that the syncer made. None if it is unknown."""

    def status(self) -> dict[str, Any]:
        """Returns the fields of `/status`."""
        return {
            "staleness_seconds": None if self.seconds is None else round(self.seconds, 3),
            "watermark": self.watermark and _json(self.watermark),
            "searchable": self.searchable and _json(self.searchable),
            "watermark_reason": self.reason,
        }


def _json(found: Watermark) -> dict[str, Any]:
    return {
        "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.taken_ms / 1000)),
        "clock": found.clock,
        "generation": found.generation,
        "lsn": format_lsn(found.floor_lsn),
    }
