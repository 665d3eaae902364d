"""Finds the work items that will render one document, for `syncer trace`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from syncer.declaration.sql_types import INTEGERS
from syncer.errors import Reject
from syncer.events import Key, WorkItem
from syncer.pipeline import decode
from syncer.ports import WorkQueue
from syncer.quantities import counted

_ITEMS = 1000
"""Work items that are read of each partition."""


def pending(queues: Iterable[WorkQueue], key: Key, types: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for each waiting work item that renders this root, or may render it.

    types: the type families of the key columns.
    Raises Retry if the queues are unreachable.
    """
    unread = 0
    for queue in queues:
        for backlog in queue.backlog(_ITEMS):
            unread += backlog.records - len(backlog.first)
            for record in backlog.first:
                try:
                    item = decode.work(record.position, record.value, None)
                except Reject:
                    continue
                if item and (how := _renders(item, key, types)):
                    yield f"a work item waits: {how} ({item.reason})"
    if unread:
        yield counted(unread, "more work item waits, and may render it", "more work items wait, and may render it")


def _renders(item: WorkItem, key: Key, types: Sequence[str]) -> str:
    """Returns how an item concerns a root; empty if it does not.

    Only PostgreSQL knows the order of keys other than integers. So their ranges may contain any key.
    """
    if item.kind == "sweep":
        return "a sweep of documents that the sinks hold"
    if item.kind == "keys":
        return "this document" if key in item.keys else ""
    if not all(type in INTEGERS for type in types):
        return "a range of documents that may contain it"
    number = _numbers(key)
    above = item.low is None or _numbers(item.low) < number
    return "a range of documents that contains it" if above and number <= _numbers(item.high or ()) else ""


def _numbers(key: Key) -> tuple[int, ...]:
    return tuple(map(int, key))
