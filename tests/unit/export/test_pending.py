"""Records between the topic and the table."""

from syncer.export.pending import Gap, Pending
from syncer.ports import DocumentWrite


def writes(partition: int, *offsets: int) -> list[DocumentWrite]:
    return [DocumentWrite(partition, at, "id", 1, b"{}", 0) for at in offsets]


def test_a_missing_offset_is_a_gap() -> None:
    pending = Pending({0: 5, 1: 0})
    assert pending.add([*writes(0, 5, 6), *writes(1, 0)]) == []
    assert pending.add(writes(0, 9)) == [Gap(0, 7, 9)]
    assert str(Gap(0, 7, 9)) == "partition 0, offsets 7 to 8" and str(Gap(0, 7, 8)) == "partition 0, offset 7"
    assert pending.ends() == {0: 10, 1: 1} and len(pending) == 4 and pending.bytes == 16


def test_a_reader_that_moved_without_a_record_shows_a_gap() -> None:
    pending = Pending({0: 5, 1: 0})
    assert pending.passed({0: 5, 1: 0}) == []
    assert pending.passed({0: 7, 1: 0}) == [Gap(0, 5, 7)]
    assert pending.passed({0: 7, 1: 0}) == []


def test_records_of_the_table_are_ignored() -> None:
    pending = Pending({0: 5})
    pending.add(writes(0, 5, 6, 7))
    pending.skip({0: 7})
    assert [one.offset for one in pending] == [7] and pending.begins == {0: 7} and pending.bytes == 4
    pending.skip({0: 20})
    assert not pending and pending.ends() == {}
    assert pending.add(writes(0, 8, 19, 20)) == [] and [one.offset for one in pending] == [20]
