"""When another reader of the slot means that all documents are rendered again."""

from __future__ import annotations

import pytest

from syncer.checks import Reader
from syncer.monitors.connector_resumes import compare
from syncer.registry.records import SlotReader

A, B = Reader(100, 1_700_000_000_000_000), Reader(100, 1_700_000_000_000_001)


@pytest.mark.parametrize(
    ("noted", "reader", "sound", "repaired"),
    [
        (SlotReader(A, False), B, False, True),
        (SlotReader(A, None), B, None, True),
        (SlotReader(A, True), B, True, False),
        (SlotReader(A, False), B, True, True),  # an upgrade: the earlier one may have lost rows
        (SlotReader(A, True), B, False, True),  # a downgrade
        (SlotReader(A, True), B, None, True),  # Kafka Connect does not answer
        (SlotReader(None, False), A, False, True),  # nobody read the slot before the backfill
        (SlotReader(None, True), A, True, False),
        (None, A, True, True),  # an earlier version of the syncer noted nothing
    ],
)
def test_another_reader_is_noted_and_repaired_unless_both_connectors_are_sound(
    noted: SlotReader | None, reader: Reader, sound: bool | None, repaired: bool
) -> None:
    found = compare("shop", noted, reader, lambda: (sound, "a reason"))
    assert found is not None
    assert found.note == SlotReader(reader, sound)
    assert bool(found.why) is repaired
    if repaired:
        assert "slot shop" in found.why and "a reason" in found.why


def test_the_same_reader_is_no_resume() -> None:
    def unasked() -> tuple[bool | None, str]:
        raise AssertionError("Kafka Connect was asked for nothing")

    assert compare("shop", SlotReader(A, False), A, unasked) is None
    assert compare("shop", SlotReader(A, True), A, unasked) is None
    found = compare("shop", SlotReader(A, None), A, lambda: (True, ""))
    assert found == ("", SlotReader(A, True)), "its version was not known, and is now"


def test_without_a_reader_nothing_is_known() -> None:
    assert compare("shop", SlotReader(A, False), None, lambda: (False, "")) is None


def test_a_role_that_sees_only_the_process_id_compares_that() -> None:
    blind = Reader(100, None)
    assert compare("shop", SlotReader(blind, False), blind, lambda: (False, "")) is None
    assert compare("shop", SlotReader(blind, False), Reader(101, None), lambda: (False, "")) is not None
