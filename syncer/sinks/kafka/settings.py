"""The block of the Kafka sink in a read model. Its connection is the section `kafka` of the configuration.

The topic is in the same cluster as the changes, and `kafka.properties` apply to its clients, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from syncer.config.schema import KafkaSettings as Connection
from syncer.declaration.names import Pattern
from syncer.quantities import Seconds, lasting

__all__ = ["Connection", "Settings", "client_settings"]

_TOPIC = Pattern(r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,240}$", "1 to 240 letters, digits, '.', '_' and '-'")


class Settings(BaseModel):
    """Writes each document to a topic of Kafka, as one record for each write."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: Annotated[str, _TOPIC] = Field(
        description="The topic; the syncer creates it. TOPIC.syncer holds the hash of the declaration"
    )
    partitions: int | None = Field(
        None, gt=0, description="Partitions of a new topic, which nobody may change later (default: kafka.partitions)"
    )
    compaction_lag: Annotated[Seconds, lasting(least=3600)] = Field(
        86400,
        description="How long a new topic keeps every record before compaction may remove it, such as 1d; at least 1h",
    )
    cleanup_policy: Literal["compact", "delete"] = Field(
        "compact",
        description="compact: the topic keeps the last record of each id. delete: it keeps every record without a time"
        " limit, as `syncer export` needs",
    )


def client_settings(connection: Connection) -> dict[str, Any]:
    """Returns the settings of librdkafka that all clients of the sink have in common."""
    return {
        "bootstrap.servers": connection.bootstrap_servers,
        "client.id": "syncer-documents",
        "log_level": 2,  # librdkafka's own lines are no log entries of the syncer; errors arrive as exceptions
        **connection.properties,
    }
