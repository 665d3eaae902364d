"""Publishes the watermarks of an open read model in its sinks, and makes its documents searchable on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from syncer.config.schema import FreshnessSettings
from syncer.freshness.publishing import Publisher
from syncer.freshness.searchable import Searches
from syncer.freshness.watermark import Watermark
from syncer.ports import PublishingSink, SearchableSink, WritableSink
from syncer.registry.records import Registration


class Outlets:
    """The publisher and the searches of one session of a read model, for the sinks that have these capabilities.

    watermark: returns the watermark of the moment. is_leader, dead_letters: see `Publisher`.
    """

    def __init__(
        self,
        settings: FreshnessSettings,
        registration: Registration,
        sinks: Sequence[WritableSink],
        *,
        watermark: Callable[[], Watermark | None],
        is_leader: Callable[[], bool],
        dead_letters: Callable[[], int],
    ) -> None:
        self._generation = registration.generation
        self._publisher = Publisher(
            registration.model,
            registration.epoch,
            [sink for sink in sinks if isinstance(sink, PublishingSink)],
            interval=settings.publish_interval,
            is_leader=is_leader,
            dead_letters=dead_letters,
        )
        searchable = [sink for sink in sinks if isinstance(sink, SearchableSink)]
        self.searches = Searches(registration.model, searchable, watermark)

    def offer(self, watermark: Watermark) -> None:
        """Publishes a watermark that was confirmed just now, if it is of this generation. Does not block."""
        if watermark.generation == self._generation:
            self._publisher.offer(watermark, self.searches.reached)

    def close(self) -> None:
        """Ends all requests before the sinks are closed. Waits up to two seconds for them."""
        self.searches.close()
        self._publisher.close()
