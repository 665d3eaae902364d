"""Names the topics and consumer groups of one generation of a read model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from syncer.config.schema import Config
from syncer.events import TableName
from syncer.kafka.names import topic_of


@dataclass(frozen=True, slots=True)
class Names:
    """The topics and consumer groups of one generation of a read model."""

    changes: tuple[str, ...]
    """The change topics of its tables, without duplicates: two tables can have the same topic."""
    group: str
    work_topic: str
    work_group: str
    backfill_topic: str
    """Ranges have their own topic. Otherwise a fan-out would wait for hours behind a backfill."""
    backfill_group: str
    delayed_topic: str
    """Roots that change often wait in it (`min_interval`). Otherwise other work would wait behind them."""
    delayed_group: str
    dead_letters: str
    """All generations share it."""

    @property
    def work_topics(self) -> tuple[str, ...]:
        """All topics of work items."""
        return self.work_topic, self.backfill_topic, self.delayed_topic

    def order_group(self, sink: str) -> str:
        """Returns the group that checks the order of a sink's log. sink: its name."""
        return f"{self.group}.order.{sink}"

    @classmethod
    def make(cls, config: Config, model: str, tables: Iterable[TableName], generation: int) -> Names:
        prefix = f"{config.kafka.group_prefix}.{model}.{generation}"
        changes = sorted({topic_of(config.kafka.topic_prefix, table) for table in tables})
        letters = f"{config.kafka.group_prefix}.{model}.dlq"
        work, backfill, delayed = f"{prefix}.work", f"{prefix}.backfill", f"{prefix}.delayed"
        return cls(tuple(changes), prefix, work, work, backfill, backfill, delayed, delayed, letters)
