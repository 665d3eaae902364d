"""Divides the data that a sink sends into requests of limited size. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def chunks(
    items: Iterable[_Item],
    size: Callable[[_Item], int],
    *,
    max_size: Callable[[], int],
    max_items: int | None = None,
) -> Iterator[list[_Item]]:
    """Yields the items in their order, in parts of at most `max_size`. A larger item is a part of its own.

    size: of one item. max_size: called for each item, because the limit of a server may change meanwhile.
    """
    chunk, total = list[_Item](), 0
    for item in items:
        length = size(item)
        if chunk and (len(chunk) == max_items or total + length > max_size()):
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += length
    if chunk:
        yield chunk


def pages(items: Sequence[_Item], length: int) -> Iterator[Sequence[_Item]]:
    """Yields the items in their order, in parts of at most `length` items."""
    for start in range(0, len(items), length):
        yield items[start : start + length]
