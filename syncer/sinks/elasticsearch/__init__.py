"""Writes documents to Elasticsearch: one index per generation behind an alias.

settings       the two YAML blocks
checks         the checks for `syncer check`, and the mapping for `syncer explain`
scratch_index  asks the server whether it would accept the index
readers        whether applications read the index that is kept in sync
sink           the sink
index          settings of the index, and the record of what it was built from
mapping        the mapping, derived from the document's fields
partials       the partials of documents, in a hidden index; `partial_documents` builds its documents
scan           all documents of an index
bulk           bodies and answers of `_bulk`
adaptive_size  how large a request may be
client         requests, and the errors of whole requests
durability     whether acknowledged writes or deletes were lost
watermarks     the watermark, where applications find it
"""

from syncer.sinks.elasticsearch.checks import TARGET_HINT, derived, preflight, target, trial, validate
from syncer.sinks.elasticsearch.readers import readers_elsewhere
from syncer.sinks.elasticsearch.settings import Connection, Settings
from syncer.sinks.elasticsearch.sink import SINK
from syncer.sinks.elasticsearch.watermarks import published, publishing_problems

__all__ = [
    "SINK",
    "TARGET_HINT",
    "Connection",
    "Settings",
    "derived",
    "preflight",
    "published",
    "publishing_problems",
    "readers_elsewhere",
    "target",
    "trial",
    "validate",
]
