"""Writes documents to Redis: one key per document, with its version in a second key of the same slot."""

from syncer.sinks.redis.sink import SINK, Connection, Settings, misread, preflight, tried, validate

__all__ = ["SINK", "Connection", "Settings", "misread", "preflight", "tried", "validate"]
