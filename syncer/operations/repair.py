"""Repairs documents that differ from PostgreSQL: renders them again and writes them to the sinks.

A sink keeps the document with the highest version. A manual edit can have the highest version: in Elasticsearch, each
edit or delete increases the version of the document by one. In Redis, the version does not change. On an idle database,
the snapshot clock does not advance. Then a new render has the same version or a lower one, and the sink ignores it as
stale. Therefore the repair first advances the clock past the versions in the sinks. To do that, it commits messages
that touch no table.
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

_MAX_COMMITS = 1000
"""Limit for advancing the clock; it takes some seconds. A larger gap does not come from manual edits."""


def repair(run: OneOffRun, ids: Collection[str]) -> None:
    """Renders these documents again and writes them to every sink. Ignores ids that are not valid keys.

    Raises Fatal if the versions in the sinks are too far ahead of the clock.
    """
    opened = run.opened
    keys: list[Key] = []
    for id in ids:
        with suppress(ValueError):
            keys.append(document.parse_id(id, len(opened.loaded.compiled.key)))
    epoch, clock = split_version(_newest(opened.sinks, list(ids)))
    if epoch == opened.registration.epoch:  # an earlier one is below all new versions; a later one fails the write
        with closing(opened.rows()) as rows:
            _advance_clock(rows, clock, opened.loaded.name)
    run.render(keys, "repair")


def _newest(sinks: Sequence[InspectableSink], ids: Sequence[str]) -> int:
    """Returns the highest version that a sink has of these documents or of their tombstones. 0: none has any."""
    return max((version for sink in sinks for version in sink.versions(ids).values()), default=0)


def _advance_clock(rows: Rows, past: int, model: str) -> None:
    """Commits messages until a snapshot has a clock higher than `past`. Raises Fatal if it is too far ahead."""
    behind = 0
    for _ in range(_MAX_COMMITS):
        with rows.view() as view:
            behind = past - view.head.snapshot.clock
        if behind < 0:
            return
        if behind >= _MAX_COMMITS:
            break
        rows.flush()
    raise Fatal(
        "a sink has documents with higher versions than the clock of PostgreSQL can reach",
        where=model,
        why=f"the clock is {behind:,} transactions behind",
        hint=f"syncer resync {model}",
    )
