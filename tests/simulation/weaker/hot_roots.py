"""Weaker rules about roots that change often (`pipeline/hot_roots.py`, `pipeline/delayed_items.py`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from syncer.events import Key
from syncer.freshness.watermark import Pending
from syncer.pipeline.change_stages import ChangeStages
from syncer.pipeline.delayed_items import DelayedItems
from syncer.ports import Partition
from tests.simulation.freshness import Measurement
from tests.simulation.stream import Topics
from tests.simulation.weaker.rule import Weaker
from tests.simulation.weaker.watermarks import without_later_candidates


def kept_in_memory(stages: ChangeStages, keys: Collection[Key], oldest_ms: int) -> list[Key]:
    """Renders delayed roots with a later batch, and puts no item into a topic."""
    now, hot = stages._wait.time.monotonic(), stages._hot
    if hot is None:
        return list(keys)
    kept: dict[Key, float] = vars(hot).setdefault("kept", {})
    due, later = hot.split(keys, now)
    ready = [key for key, at in kept.items() if at <= now]
    for key in ready:
        del kept[key]
    kept |= {key: now + hot.interval for key in later if key not in kept}
    return list(dict.fromkeys([*ready, *due]))


def only_the_named_partial(items: DelayedItems, key: Key) -> list[Key]:
    """Releases one partial, and regards the others of its root as rendered."""
    for other in items._of_root.pop(key[: items._columns], []):
        if other != key:
            del items._pending[other]
    return [key]


def ends_without_delayed(measurement: Measurement, *topics: Topics) -> dict[Partition, int]:
    found = {p: len(records) for one in topics for p, records in one.records.items()}
    return {partition: end for partition, end in found.items() if partition[0] != "delayed"}


def _hot(
    wrong: str, patches: Mapping[tuple[type, str], Any], first: int = 0, lookup_levels: int | None = None
) -> Weaker:
    return Weaker(wrong, patches, watermarks=True, hot=True, first=first, lookup_levels=lookup_levels)


RULES = {
    "a delayed root is kept in memory": _hot(
        "the process dies, or no further change comes",
        {(ChangeStages, "_delay"): kept_in_memory},
    ),
    "a delayed partial is kept in memory": Weaker(
        "the process dies, or no further change comes",
        {(ChangeStages, "_delay"): kept_in_memory},
        model="combined",
        hot=True,
    ),
    "a released partial covers the other partials of its root": Weaker(
        "only this partial was rendered",
        {(DelayedItems, "_with"): only_the_named_partial},
        model="combined",
        hot=True,
    ),
    "a watermark before delayed roots": _hot(
        "a delayed root is not rendered yet",
        {(Measurement, "_ends"): ends_without_delayed},
        lookup_levels=0,
    ),
    "a look-up that a move outruns": _hot(
        "a row moved away before the look-up, and the event of the move is not processed yet",
        {(Pending, "ready"): without_later_candidates},
        first=30100,
    ),
}
