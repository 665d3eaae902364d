"""Writes documents to a topic of Kafka: one record for each write. Other stores and clients can read them there.

settings     the block of a read model; the section `kafka` of the configuration is the connection
checks       the checks for `syncer check`
sink         the sink
records      a document as a record, and back
topic        the settings that a topic must have, and the record of what was written to it
tail         reads the topic up to its end
table        the last record of each id, for `verify`
documents    the records as a `ports.DocumentTopic`, for clients that follow the documents
log          the records as a `ports.DocumentLog`, for the order lane

The topic has no versions of its own. `sink.py` explains how the last record of an id becomes the newest one.
"""

from syncer.sinks.kafka.checks import TARGET_HINT, derived, preflight, readers_elsewhere, target, trial, validate
from syncer.sinks.kafka.documents import documents
from syncer.sinks.kafka.settings import Connection, Settings
from syncer.sinks.kafka.sink import SINK

__all__ = [
    "SINK",
    "TARGET_HINT",
    "Connection",
    "Settings",
    "derived",
    "documents",
    "preflight",
    "readers_elsewhere",
    "target",
    "trial",
    "validate",
]
