"""The checks of the Kafka sink for `syncer check`. They do not change a topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from syncer.declaration.compile import Compiled, Field
from syncer.errors import SyncerError
from syncer.quantities import counted
from syncer.sinks.kafka import topic
from syncer.sinks.kafka.settings import Connection, Settings
from syncer.sinks.problem import Problem
from syncer.sinks.target import Target

TARGET_HINT = "choose another topic"


def target(settings: Settings) -> str:
    """Returns the topic."""
    return settings.topic


def derived(settings: Settings, fields: Sequence[Field]) -> dict[str, Any]:
    """Returns nothing: Kafka has no schema."""
    return {}


def validate(settings: Settings, fields: Sequence[Field]) -> list[Problem]:
    """Returns nothing: a record holds any document."""
    return []


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    """Reports that Kafka is unreachable or denies access."""
    try:
        topic.admin_of(connection).existing()
    except SyncerError as error:
        return [error]
    return []


def trial(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    """Reports a topic that cannot hold documents: by its name, settings, partitions, owner, or too few replicas."""
    if why := topic.reserved(settings.topic, connection):
        return [Problem(f"topic {settings.topic} cannot hold documents", why, TARGET_HINT, ("topic",))]
    admin = topic.admin_of(connection)
    replicas = admin.replicas(settings.topic)
    found = []
    if replicas:
        configuration = admin.configs(settings.topic)
        wrong = topic.problems(settings, configuration, connection, min(replicas))
        found = [Problem(one.what, one.why, one.hint, ("topic",)) for one in wrong]
        record = topic.TopicRecord(settings.topic, connection, admin, Target.of("", model, 1, 1))
        for one in record.read():
            found += _foreign(settings.topic, one, model.name, len(replicas))
    if min(replicas, default=connection.replication_factor) < 2:
        what, why = f"topic {settings.topic} has one replica", "its documents are lost with the disk of one broker"
        found.append(Problem(what, why, "set kafka.replication_factor to 3 in production", ("topic",), certain=False))
    return found


def _foreign(name: str, record: dict[str, Any], model: str, partitions: int) -> list[Problem]:
    if record["model"] != model:
        return [Problem(f"topic {name} belongs to the read model {record['model']}", "", TARGET_HINT, ("topic",))]
    if record["partitions"] != partitions:
        what = (
            f"topic {name} had {counted(record['partitions'], 'partition')} when it was created, and has {partitions}"
        )
        fix = f"delete {name} and {name}.syncer, then: syncer resync {model}"
        return [Problem(what, "the records of an id are no longer in order", fix, ("topic",))]
    return []


def readers_elsewhere(connection: Connection, settings: Settings, generation: int) -> None:
    """Returns None: all generations share the topic."""
