"""Repair: documents that are not what PostgreSQL says are rendered again, so that they are.

A sink keeps the highest version, and an edit by hand may have it: in Elasticsearch each edit raises a
document's version by one, also a delete; in Redis it stays as it was. On a quiet database the clock stands
still, so what is rendered then would have the same version or a lower one, and be taken for old. So the clock
is moved past what the sinks hold, by commits of a message that touches no table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing, suppress

from syncer import document
from syncer.clock import split_version
from syncer.errors import Fatal
from syncer.events import Key
from syncer.operations.one_off import OneOffRun
from syncer.ports import InspectableSink, Rows

_COMMITS = 1000
"""How far the clock is moved at most: some seconds. More edits than this were not made by hand."""


def repair(errand: OneOffRun, ids: Collection[str]) -> None:
    """Render these documents anew in every sink. Ids that can be no key are left as they are.

    Raises Fatal if the sinks hold versions that the clock cannot be moved past.
    """
    opened = errand.opened
    keys: list[Key] = []
    for id in ids:
        with suppress(ValueError):
            keys.append(document.parse_id(id, len(opened.loaded.compiled.key)))
    epoch, clock = split_version(_newest(opened.sinks, list(ids)))
    if epoch == opened.registration.epoch:  # an earlier one is below all new versions; a later one fails the write
        with closing(opened.rows()) as rows:
            _move_clock(rows, clock, opened.loaded.name)
    errand.render(keys, "repair")


def _newest(sinks: Sequence[InspectableSink], ids: Sequence[str]) -> int:
    """Returns the highest version that a sink holds of these documents or of their deletes. 0: none holds any."""
    return max((version for sink in sinks for version in sink.versions(ids).values()), default=0)


def _move_clock(rows: Rows, past: int, model: str) -> None:
    """Until a snapshot has a higher one."""
    behind = 0
    for _ in range(_COMMITS):
        with rows.view() as view:
            behind = past - view.head.snapshot.clock
        if behind < 0:
            return
        if behind >= _COMMITS:
            break
        rows.flush()
    raise Fatal(
        "a sink holds documents of a later clock than PostgreSQL has, too far to be moved there",
        where=model,
        why=f"{behind} transactions",
        hint=f"syncer resync {model}",
    )
