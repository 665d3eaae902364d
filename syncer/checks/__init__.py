"""Checks read models, the PostgreSQL server and the connector before anything runs.

Pure functions from facts to findings. `postgres/catalog.py`, `postgres/publication.py` and `connect/client.py` gather
the facts. The checks change nothing. Each finding names the command or the setting that fixes it.

* `model`: can the tables carry a read model? Kinds, keys, replica identities, indexes, privileges.
* `source`: does the server send every change? WAL level, publication, slot.
* `connector`: do the connector's settings keep every change, in the form that the pipeline reads?
* `running`: do the connector and its slot run now?
* `topics`: do the topics keep acknowledged records, and are source offsets committed often enough?
* `limits`: do columns have numbers that a sink rejects?
* `trees`: do trees have cycles, or paths that are longer than the limit?
* `table_state`: were tables altered in a way that needs all documents rendered again?
"""

from syncer.checks.connector import (
    POSTGRES_CONNECTOR,
    check_connector,
    check_repair,
    check_session_visibility,
    check_version,
    loses_only_inserts,
)
from syncer.checks.finding import Finding
from syncer.checks.model import check_model, needed_columns, unfit, unpublishable
from syncer.checks.running import Status, Task, check_running
from syncer.checks.source import (
    Publication,
    Reader,
    Slot,
    SourceFacts,
    check_publication,
    check_source,
    publication_statements,
)
from syncer.checks.topics import OffsetTopic, check_flush, check_topics

__all__ = [
    "POSTGRES_CONNECTOR",
    "Finding",
    "OffsetTopic",
    "Publication",
    "Reader",
    "Slot",
    "SourceFacts",
    "Status",
    "Task",
    "check_connector",
    "check_flush",
    "check_model",
    "check_publication",
    "check_repair",
    "check_running",
    "check_session_visibility",
    "check_source",
    "check_topics",
    "check_version",
    "loses_only_inserts",
    "needed_columns",
    "publication_statements",
    "unfit",
    "unpublishable",
]
