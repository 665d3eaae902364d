"""Writes documents to Redis: one key per document, with its version in a second key of the same slot."""

from syncer.sinks.redis.sink import SINK, Connection, Settings, preflight, validate

__all__ = ["SINK", "Connection", "Settings", "preflight", "validate"]
