"""Writes documents to a table of PostgreSQL: one table per generation behind a view.

settings     the two YAML blocks
checks       the checks for `syncer check`, and the column types for `syncer explain`
refusals     properties of tables that the sink cannot work with
readers      whether applications read the table that is kept in sync
sink         the sink
schema       creates the table, and points the view at it
views        the view that applications read
generations  the record of what the tables were built from, and the watermark
columns      the types of the columns, and how values read back
statements   the SQL of one table
writer       a batch as statements, halved where a document is refused
durability   whether acknowledged writes were lost; forgets old deletes
catalog      PostgreSQL's catalog
deadline     breaks connections that do not answer
sessions     lends sessions, and follows a failover
server       opens sessions, and decides which errors are retried
"""

from syncer.sinks.postgres.checks import TARGET_HINT, derived, preflight, target, trial, validate
from syncer.sinks.postgres.generations import published_for as published
from syncer.sinks.postgres.generations import publishing_problems
from syncer.sinks.postgres.readers import readers_elsewhere
from syncer.sinks.postgres.settings import Connection, Settings
from syncer.sinks.postgres.sink import SINK

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
