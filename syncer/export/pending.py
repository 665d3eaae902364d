"""The records that were read and are not in the table yet. No I/O.

Offsets of a topic that keeps all records are consecutive. A missing offset means that a record was lost, so it is an
error. The records of a transaction leave gaps, too: its end marker and aborted records occupy offsets. The syncer
writes without transactions. So a gap also shows another program that writes to the topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from syncer.ports import DocumentWrite


class Gap(NamedTuple):
    """Offsets that the topic does not have."""

    partition: int
    first: int
    end: int
    """The next offset that exists."""

    def __str__(self) -> str:
        last = self.end - 1
        return f"partition {self.partition}, offset{f's {self.first} to {last}' if last > self.first else f' {last}'}"


class Pending:
    """Records in the order of their partitions. next_offsets: partition → the first offset that is not in the table."""

    def __init__(self, next_offsets: Mapping[int, int]) -> None:
        self.begins = dict(next_offsets)
        """Partition → the offset after the last one that is known to be in the table."""
        self.next = dict(next_offsets)
        """Partition → the next offset to add. All records between `begins` and this are pending."""
        self.bytes = 0
        self._writes: dict[int, list[DocumentWrite]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._writes.values()))

    def __iter__(self) -> Iterator[DocumentWrite]:
        return (write for number in sorted(self._writes) for write in self._writes[number])

    def add(self, writes: Iterable[DocumentWrite]) -> list[Gap]:
        """Adds records, and returns the gaps before them. Ignores records that the table has already."""
        gaps = []
        for one in writes:
            expected = self.next[one.partition]
            if one.offset < expected:
                continue
            if one.offset > expected:
                gaps.append(Gap(one.partition, expected, one.offset))
            self._writes.setdefault(one.partition, []).append(one)
            self.next[one.partition] = one.offset + 1
            self.bytes += _size(one)
        return gaps

    def passed(self, positions: Mapping[int, int]) -> list[Gap]:
        """Moves to these offsets, which follow the last record of a partition. Returns the gaps before them."""
        gaps = [Gap(p, self.next[p], at) for p, at in sorted(positions.items()) if at > self.next[p]]
        for gap in gaps:
            self.next[gap.partition] = gap.end
        return gaps

    def skip(self, stored: Mapping[int, int]) -> None:
        """Forgets the records before these offsets: the table has them."""
        for number, offset in stored.items():
            if kept := [one for one in self._writes.pop(number, []) if one.offset >= offset]:
                self._writes[number] = kept
            self.begins[number] = max(self.begins[number], offset)
            self.next[number] = max(self.next[number], offset)
        self.bytes = sum(map(_size, self))

    def position(self, partition: int) -> int:
        """Returns the offset up to which the table has every record of a partition that exists."""
        return (self.begins if partition in self._writes else self.next)[partition]

    def oldest_ms(self) -> int | None:
        """Returns when the oldest record was written, in milliseconds since the Unix epoch. None if there is none."""
        return min((writes[0].at_ms for writes in self._writes.values()), default=None)

    def ends(self) -> dict[int, int]:
        """Returns the next offset of each partition with records."""
        return {number: self.next[number] for number in self._writes}


def _size(write: DocumentWrite) -> int:
    return len(write.id) + len(write.body or b"")
