"""Writes documents to Elasticsearch, one index per generation behind an alias."""

from syncer.sinks.elasticsearch.sink import SINK, Connection, Settings, misread, preflight, tried, validate

__all__ = ["SINK", "Connection", "Settings", "misread", "preflight", "tried", "validate"]
