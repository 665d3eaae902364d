"""When a candidate is proved: its message, a source offset behind it, and the same reader of the slot."""

from __future__ import annotations

import json

import pytest

from syncer.clock import Identity, Snapshot
from syncer.freshness.candidates import Candidate
from syncer.freshness.proof import MOST, Proof, SourceOffset, read_offset

KEY = b'["shop",{"server":"shop"}]'
READER = ("pid 7", 1)


def candidate(lsn: int, reader: object = READER, taken_ms: int = 0) -> Candidate:
    return Candidate(Identity(7, 1), Snapshot.parse("10:10:"), lsn - 5, lsn, taken_ms, reader, 1)


def waiting(*candidates: Candidate) -> Proof:
    proof = Proof()
    for number, one in enumerate(candidates, 1):
        proof.add(number, one)
    return proof


@pytest.mark.parametrize(
    ("value", "lsn"),
    [
        ({"lsn": 100}, 100),
        ({"lsn": 100, "snapshot": "INITIAL"}, None),
        ({"lsn": 100, "snapshot": True}, None),
        ({"lsn": 100, "snapshot_completed": False}, None),
        ({"lsn": 100, "snapshot_completed": True}, 100),
        ({"lsn": None}, None),
        ({"position": 3}, None),
        (None, None),
    ],
)
def test_only_offsets_of_the_stream_count(value: object, lsn: int | None) -> None:
    offset = read_offset(KEY, json.dumps(value).encode())
    assert offset == (None if lsn is None else SourceOffset("shop", lsn))


@pytest.mark.parametrize("key", [None, b"", b"shop", b'"shop"', b"[]", b"\xff"])
def test_a_record_of_another_form_is_no_offset(key: bytes | None) -> None:
    assert read_offset(key, b'{"lsn":100}') is None


def test_a_candidate_needs_its_message_and_an_offset_behind_it() -> None:
    proof = waiting(candidate(100))
    proof.arrived(1)
    assert proof.proved(READER) is None, "the message alone proves nothing about other partitions"
    proof.committed(SourceOffset("shop", 99))
    assert proof.proved(READER) is None
    proof.committed(SourceOffset("shop", 100))
    assert proof.ready and proof.proved(READER) == candidate(100)
    assert not proof.waiting and proof.proved(READER) is None


def test_an_offset_without_the_message_proves_nothing() -> None:
    proof = waiting(candidate(100))
    proof.committed(SourceOffset("shop", 200))
    assert not proof.ready and proof.proved(READER) is None


def test_the_last_proved_candidate_is_returned_and_later_ones_wait() -> None:
    proof = waiting(candidate(100), candidate(200), candidate(300))
    proof.arrived(2)
    proof.committed(SourceOffset("shop", 400))
    assert proof.proved(READER) == candidate(200)
    proof.arrived(3)
    assert proof.proved(READER) == candidate(300)


def test_an_offset_from_before_the_candidate_does_not_count() -> None:
    """It may come from another server, whose positions are higher."""
    proof = Proof()
    proof.committed(SourceOffset("shop", 900))
    proof.add(1, candidate(100))
    proof.arrived(1)
    assert proof.proved(READER) is None


@pytest.mark.parametrize(("then", "now"), [(READER, ("pid 8", 2)), (READER, None), (None, None), (None, READER)])
def test_a_candidate_is_dropped_if_the_slot_has_another_reader_now(then: object, now: object) -> None:
    proof = waiting(candidate(100, then))
    proof.arrived(1)
    proof.committed(SourceOffset("shop", 100))
    assert proof.proved(now) is None
    assert not proof.waiting


def test_after_a_loss_nothing_that_was_known_counts() -> None:
    proof = waiting(candidate(100))
    proof.arrived(1)
    proof.committed(SourceOffset("shop", 500))
    proof.clear()
    assert not proof.waiting
    proof.add(2, candidate(100))
    proof.arrived(2)
    assert proof.proved(READER) is None


def test_many_candidates_are_thinned_out_and_the_first_and_last_stay() -> None:
    """A connector that is down for a day must not cost memory and time for a candidate every second."""
    proof = waiting(*(candidate(number, taken_ms=1000 * number) for number in range(1, 5 * MOST)))
    assert len(proof._waiting) <= MOST
    proof.arrived(1)
    assert "source offset at or after 0/1:" in proof.blocked
    proof.committed(SourceOffset("shop", 5 * MOST))
    proof.arrived(5 * MOST)
    found = proof.proved(READER)
    assert found and found.lsn == 5 * MOST - 1


def test_a_candidate_that_waits_for_long_has_an_explanation() -> None:
    assert waiting(candidate(100), candidate(100, taken_ms=500)).blocked == ""
    proof = waiting(candidate(100), candidate(100, taken_ms=1500))
    assert "has not delivered a message" in proof.blocked
    proof.arrived(1)
    assert "source offset at or after 0/64" in proof.blocked
    assert "no connector" in waiting(candidate(100, None), candidate(100, None, 1500)).blocked
