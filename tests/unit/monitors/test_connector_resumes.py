"""Tests when another reader of the slot causes a render of all documents."""

from __future__ import annotations

import pytest

from syncer.checks import Reader
from syncer.monitors.connector_resumes import compare
from syncer.registry.records import SlotReader

A, B = Reader(100, 1_700_000_000_000_000), Reader(100, 1_700_000_000_000_001)


@pytest.mark.parametrize(
    ("saved", "reader", "sound", "repaired"),
    [
        (SlotReader(A, False), B, False, True),
        (SlotReader(A, None), B, None, True),
        (SlotReader(A, True), B, True, False),
        (SlotReader(A, False), B, True, True),  # an upgrade: the earlier version may have lost rows
        (SlotReader(A, True), B, False, True),  # a downgrade
        (SlotReader(A, True), B, None, True),  # Kafka Connect does not answer
        (SlotReader(None, False), A, False, True),  # no process read the slot before the backfill
        (SlotReader(None, True), A, True, False),
        (None, A, True, True),  # an earlier version of the syncer saved nothing
    ],
)
def test_another_reader_causes_a_render_unless_both_connectors_are_sound(
    saved: SlotReader | None, reader: Reader, sound: bool | None, repaired: bool
) -> None:
    found = compare("shop", saved, reader, lambda: (sound, "a reason"))
    assert found is not None
    assert found.reader == SlotReader(reader, sound)
    assert bool(found.why) is repaired
    if repaired:
        assert "slot shop" in found.why and "a reason" in found.why


def test_the_same_reader_is_not_a_resume() -> None:
    def not_called() -> tuple[bool | None, str]:
        raise AssertionError("an unnecessary request to Kafka Connect")

    assert compare("shop", SlotReader(A, False), A, not_called) is None
    assert compare("shop", SlotReader(A, True), A, not_called) is None
    found = compare("shop", SlotReader(A, None), A, lambda: (True, ""))
    assert found == ("", SlotReader(A, True)), "the version of the connector became known"


def test_without_a_reader_there_is_nothing_to_compare() -> None:
    assert compare("shop", SlotReader(A, False), None, lambda: (False, "")) is None


def test_a_database_role_that_sees_only_process_ids_compares_these() -> None:
    blind = Reader(100, None)
    assert compare("shop", SlotReader(blind, False), blind, lambda: (False, "")) is None
    assert compare("shop", SlotReader(blind, False), Reader(101, None), lambda: (False, "")) is not None
