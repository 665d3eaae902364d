"""Tests when another reader of the slot causes documents to be rendered again, and which ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from syncer.checks import Reader
from syncer.monitors.connector_resumes import Resumed, compare
from syncer.registry.records import Proved, SlotReader

A, B, C = (Reader(100, 1_700_000_000_000_000 + n) for n in range(3))
OF_A, OF_B = Proved(A, 7, 1, 1000), Proved(B, 7, 1, 2000)


def compared(
    saved: SlotReader | None,
    reader: Reader | None,
    only_inserts: bool | None,
    proved: Sequence[Proved] = (OF_A, OF_B),
) -> Resumed | None:
    return compare("shop", saved, reader, lambda: (only_inserts, "a reason"), lambda: proved)


@pytest.mark.parametrize(
    ("saved", "reader", "only_inserts", "proved"),
    [
        (SlotReader(A, True), B, True, OF_A),
        (SlotReader(B, True), C, True, OF_B),
        (SlotReader(A, True), C, True, OF_A),  # B read the slot in between
        (SlotReader(C, True), A, True, None),  # nothing was proved while C read the slot
        (SlotReader(C, True, OF_A), Reader(101, 0), True, OF_A),  # the last repair relied on this
        (SlotReader(B, True, OF_A), C, True, OF_B),
        (SlotReader(C, False, OF_A), A, True, None),
        (SlotReader(A, False), B, False, None),
        (SlotReader(A, None), B, None, None),
        (SlotReader(A, False), B, True, None),  # an upgrade: the earlier version may have lost any change
        (SlotReader(A, True), B, False, None),  # a downgrade
        (SlotReader(A, True), B, None, None),  # Kafka Connect does not answer
        (SlotReader(None, True), A, True, None),  # no process read the slot before the backfill
        (None, A, True, None),  # an earlier version of the syncer saved nothing
    ],
)
def test_another_reader_causes_renders_of_recent_rows_if_it_is_known_which_ones(
    saved: SlotReader | None, reader: Reader, only_inserts: bool | None, proved: Proved | None
) -> None:
    found = compared(saved, reader, only_inserts)
    assert found is not None
    assert found.reader == SlotReader(reader, only_inserts, proved)
    assert "slot shop" in found.why and "a reason" in found.why
    assert found.proved == proved


def test_the_same_reader_is_not_a_resume() -> None:
    def not_called() -> tuple[bool | None, str]:
        raise AssertionError("an unnecessary request to Kafka Connect")

    assert compare("shop", SlotReader(A, False), A, not_called, list) is None
    assert compare("shop", SlotReader(A, True), A, not_called, list) is None
    found = compared(SlotReader(A, None, OF_A), A, True)
    assert found == Resumed("", SlotReader(A, True, OF_A)), "the version became known"


def test_without_a_reader_there_is_nothing_to_compare() -> None:
    assert compared(SlotReader(A, False), None, False) is None


def test_a_database_role_that_sees_only_process_ids_compares_these() -> None:
    blind = Reader(100, None)
    assert compared(SlotReader(blind, False), blind, False) is None
    assert compared(SlotReader(blind, False), Reader(101, None), False) is not None
