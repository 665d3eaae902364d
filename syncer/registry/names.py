"""Names the topics and consumer groups of one generation of a read model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from syncer.config.schema import Config
from syncer.events import TableName
from syncer.kafka.names import topic_of


@dataclass(frozen=True, slots=True)
class Names:
    """What belongs to one generation of a read model in Kafka."""

    changes: tuple[str, ...]
    """Its tables' change topics, each once: two tables can have the same one."""
    group: str
    work_topic: str
    work_group: str
    backfill_topic: str
    """Its ranges have a topic of their own, so that a fan-out does not wait for hours of them."""
    backfill_group: str
    dead_letters: str

    @classmethod
    def make(cls, config: Config, model: str, tables: Iterable[TableName], generation: int) -> Names:
        unit = f"{config.kafka.group_prefix}.{model}.{generation}"
        changes = sorted({topic_of(config.kafka.topic_prefix, table) for table in tables})
        letters = f"{config.kafka.group_prefix}.{model}.dlq"
        work, backfill = f"{unit}.work", f"{unit}.backfill"
        return cls(tuple(changes), unit, work, work, backfill, backfill, letters)
