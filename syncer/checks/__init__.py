"""What a person gets wrong, said before anything runs: about read models, source, connector.

Pure: facts come in (`postgres/catalog.py`, `postgres/publication.py`, `connect/client.py` gather them),
findings go out.
Nothing is changed; each finding says what to run.
"""

from syncer.checks.connector import (
    POSTGRES_CONNECTOR,
    check_connector,
    check_sight,
    check_version,
    resumes_soundly,
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

__all__ = [
    "POSTGRES_CONNECTOR",
    "Finding",
    "Publication",
    "Reader",
    "Slot",
    "SourceFacts",
    "Status",
    "Task",
    "check_connector",
    "check_model",
    "check_publication",
    "check_running",
    "check_sight",
    "check_source",
    "check_version",
    "needed_columns",
    "publication_statements",
    "resumes_soundly",
    "unfit",
    "unpublishable",
]
