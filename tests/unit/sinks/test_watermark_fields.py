"""The fields of a published watermark."""

from __future__ import annotations

import pytest

from syncer.ports import PublishedWatermark
from syncer.sinks import watermark as stored

FOUND = PublishedWatermark("orders", 2, 3, 1 << 47, "1:3:2", 1_772_366_400_007, "16/B374D848", 4)


@pytest.mark.parametrize("found", [FOUND, FOUND._replace(searchable_clock=5, searchable_ms=1_772_366_399_000)])
def test_fields_are_read_as_they_were_written(found: PublishedWatermark) -> None:
    fields = stored.fields(found)
    assert stored.parse(fields) == found
    assert stored.parse({name: str(value) for name, value in fields.items()}) == found


def test_times_are_texts_of_utc() -> None:
    assert stored.fields(FOUND)["taken_at"] == "2026-03-01T12:00:00.007Z"


@pytest.mark.parametrize("name", [*stored.fields(FOUND)])
def test_a_record_without_one_of_the_fields_is_no_watermark(name: str) -> None:
    fields = stored.fields(FOUND)
    if name == "epoch":
        assert stored.parse(fields | {"epoch": "x"}) is None
    del fields[name]
    assert stored.parse(fields) is None
