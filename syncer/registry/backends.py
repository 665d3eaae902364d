"""Chooses the backend. Today there is one: Kafka."""

from __future__ import annotations

from syncer.config.schema import Config
from syncer.kafka.backend import KafkaBackend
from syncer.registry.registry import Registry


def open_registry(config: Config) -> Registry:
    """Returns the registry of this configuration. Connects to no server yet.

    Raises Fatal if a setting of the backend is wrong.
    """
    return Registry(config, KafkaBackend(config))
