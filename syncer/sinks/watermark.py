"""The watermark as flat fields, in which every sink stores it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from syncer.ports import PublishedWatermark

Fields = dict[str, str | int]


def fields(watermark: PublishedWatermark) -> Fields:
    """Returns the fields. Times are ISO 8601 in UTC. An unknown value has no field."""
    found: Fields = {
        "model": watermark.model,
        "generation": watermark.generation,
        "epoch": watermark.epoch,
        "clock": watermark.clock,
        "snapshot": watermark.snapshot,
        "taken_at": _text(watermark.taken_ms),
        "lsn": watermark.lsn,
        "dead_letters": watermark.dead_letters,
    }
    if watermark.searchable_clock is not None and watermark.searchable_ms is not None:
        found["searchable_clock"] = watermark.searchable_clock
        found["searchable_taken_at"] = _text(watermark.searchable_ms)
    return found


def parse(found: Mapping[str, str | int]) -> PublishedWatermark | None:
    """Returns the watermark in these fields, whose numbers may be texts. None if they hold none."""
    try:
        searchable = "searchable_taken_at" in found
        return PublishedWatermark(
            str(found["model"]),
            int(found["generation"]),
            int(found["epoch"]),
            int(found["clock"]),
            str(found["snapshot"]),
            _ms(found["taken_at"]),
            str(found["lsn"]),
            int(found["dead_letters"]),
            int(found["searchable_clock"]) if searchable else None,
            _ms(found["searchable_taken_at"]) if searchable else None,
        )
    except (KeyError, ValueError):
        return None


def _text(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def _ms(text: str | int) -> int:
    return round(datetime.fromisoformat(str(text)).timestamp() * 1000)
