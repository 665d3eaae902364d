"""When another reader of the slot means that all documents are rendered again."""

from __future__ import annotations

from typing import Any

import pytest

from syncer.checks import Reader
from syncer.monitors.connector_resumes import compare

A, B = Reader(100, 1_700_000_000_000_000), Reader(100, 1_700_000_000_000_001)


def note(reader: Reader | None, sound: bool | None) -> dict[str, Any]:
    return {"reader": reader and {"pid": reader.pid, "since": reader.since}, "sound": sound}


@pytest.mark.parametrize(
    ("noted", "reader", "sound", "repaired"),
    [
        (note(A, False), B, False, True),
        (note(A, None), B, None, True),
        (note(A, True), B, True, False),
        (note(A, False), B, True, True),  # an upgrade: the earlier one may have lost rows
        (note(A, True), B, False, True),  # a downgrade
        (note(A, True), B, None, True),  # Kafka Connect does not answer
        (note(None, False), A, False, True),  # nobody read the slot before the backfill
        (note(None, True), A, True, False),
        ({}, A, True, True),  # an earlier version of the syncer noted nothing
    ],
)
def test_another_reader_is_noted_and_repaired_unless_both_connectors_are_sound(
    noted: dict[str, Any], reader: Reader, sound: bool | None, repaired: bool
) -> None:
    found = compare("shop", noted, reader, lambda: (sound, "a reason"))
    assert found is not None
    assert found.note == note(reader, sound)
    assert bool(found.why) is repaired
    if repaired:
        assert "slot shop" in found.why and "a reason" in found.why


def test_the_same_reader_is_no_resume() -> None:
    def unasked() -> tuple[bool | None, str]:
        raise AssertionError("Kafka Connect was asked for nothing")

    assert compare("shop", note(A, False), A, unasked) is None
    assert compare("shop", note(A, True), A, unasked) is None
    found = compare("shop", note(A, None), A, lambda: (True, ""))
    assert found == ("", note(A, True)), "its version was not known, and is now"


def test_without_a_reader_nothing_is_known() -> None:
    assert compare("shop", note(A, False), None, lambda: (False, "")) is None


def test_a_role_that_sees_only_the_process_id_compares_that() -> None:
    blind = Reader(100, None)
    assert compare("shop", note(blind, False), blind, lambda: (False, "")) is None
    assert compare("shop", note(blind, False), Reader(101, None), lambda: (False, "")) is not None
