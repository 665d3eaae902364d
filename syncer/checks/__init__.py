"""What a person gets wrong, said before anything runs: about read models, source, connector.

Pure: facts come in (`rows/catalog.py`, `rows/publication.py`, `connect.py` gather them), findings go out.
Nothing is changed; each finding says what to run.
"""

from syncer.checks.connector import check_connector
from syncer.checks.finding import Finding
from syncer.checks.model import check_model, needed_columns, unfit, unpublishable
from syncer.checks.running import Status, Task, check_running
from syncer.checks.source import (
    Publication,
    Slot,
    SourceFacts,
    check_publication,
    check_source,
    publication_statements,
)

__all__ = [
    "Finding",
    "Publication",
    "Slot",
    "SourceFacts",
    "Status",
    "Task",
    "check_connector",
    "check_model",
    "check_publication",
    "check_running",
    "check_source",
    "needed_columns",
    "publication_statements",
    "unfit",
    "unpublishable",
]
