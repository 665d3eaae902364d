"""Decides after a refresh whether applications see the documents that it wrote, also while a resync runs.

The state topic is read again after the write, never from a cache:

    another generation is active       the refresh is repeated there
    a switch was announced             503: the documents may no longer be the ones that applications read
    a resync builds a generation       a sink that is rebuilt in place: 503 until the resync is done
                                       other sinks: the next generation has to render the keys, too, before the switch
    none of these                      the refresh is done

**Why the next generation has to render the keys.** A refresh may show a change that has not arrived in Kafka yet. When
readers switch to the next generation, that has only caught up with Kafka. So it could lack the change, and a reader who
has seen the change would lose it again. Therefore the keys are written to the work topic of the next generation. Then
the state is read once more. If it announces no switch, the switch comes later, and the resync handles all work items
before it switches. If no generation is being built yet, the backfill of the next one will take later snapshots than
this refresh.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from syncer.declaration.compile import Compiled
from syncer.errors import Retry
from syncer.events import Key
from syncer.freshness.refresh_queue import REASON
from syncer.freshness.switching import find_switch
from syncer.pipeline.work_items import key_items
from syncer.registry.records import Registration, StateSlot
from syncer.registry.registry import Registry


class GenerationChanged(Retry):
    """The documents were written to a generation that is no longer the active one."""


class Generations:
    """The generations of one read model, as seen by a process that runs `registration`. Any thread may use it.

    in_place: whether a sink shares its documents between generations.
    """

    def __init__(self, registry: Registry, registration: Registration, compiled: Compiled, *, in_place: bool) -> None:
        self._registry, self._registration, self._compiled = registry, registration, compiled
        self._in_place = in_place

    def confirm(self, roots: Sequence[Key], size: int) -> None:
        """Returns if applications see the documents of these roots, and will see them after a resync.

        size: the number of keys of a work item.
        Raises GenerationChanged and Retry. Several callers share one read of the state topic.
        """
        following = self._following()
        if following is None:
            return
        names = self._registry.names(self._compiled.name, self._compiled.tables, following.generation)
        queue = self._registry.work_queue(names)
        for item in key_items(roots, size, REASON, time.time_ns() // 1_000_000):
            queue.put(item)
        queue.flush()
        self._following()

    def _following(self) -> Registration | None:
        """Returns the generation that a resync builds; None if no resync runs."""
        state, model = self._registry.state.load_since(time.monotonic()), self._registration.model
        active = state.registration(model)
        if active is None or active.generation != self._registration.generation:
            raise GenerationChanged(
                "the read model was resynced, and this process has not opened the new generation yet",
                where=model,
                hint="send the request again in some seconds",
            )
        if switch := find_switch(state, self._registration, in_place=self._in_place):
            raise switch
        return state.registration(model, StateSlot.NEXT)
