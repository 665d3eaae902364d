"""Writes documents to Elasticsearch, one index per generation behind an alias."""

from syncer.sinks.elasticsearch.sink import SINK, Connection, Settings, preflight, validate

__all__ = ["SINK", "Connection", "Settings", "preflight", "validate"]
