"""Tools for tests that run on real servers, or that run the syncer itself.

A test gets its own database and its own names, so that tests can share servers. `tests/conftest.py` makes these
fixtures: `stack` (the servers), `database`, `standby` and `names`.

Choose the highest level that the test needs:

    catalogs         tables and catalogs in memory, for tests without a server
    database         a PostgreSQL database for one test
    names            a prefix for topics, groups, connectors, indexes and keys; deletes them after the test
    connector        the demo's Debezium connector on a test database, and the events that it writes
    engine           the pipeline on a real PostgreSQL; source, work queue and sink are in memory
    system           two tables, two read models, all servers, and `syncer` as a command or a daemon
    ../convergence   a whole deployment with random writes and faults

Parts for these levels:

    process          a `syncer` command as an operating system process
    fork, preloaded  a fast start of such a process, from one that has imported the syncer
    daemon           `syncer run`: its log, its HTTP endpoints, and waiting for its states
    waiting          waiting for a condition, never for a fixed time
    event_client     a client to which changes are pushed
    memory_sink      a sink in memory, which passes the contract tests of all sinks
    terminal         a command on a pseudo-terminal
    distribution     the files that each worker of pytest-xdist runs

Faults:

    proxy            a TCP proxy that cuts, refuses or stalls connections
    freezing         a server of the stack that is frozen by SIGSTOP
    fault_proxy      an HTTP proxy that replaces responses of a server
    redis_servers    Redis servers with their own settings, and clusters
    more_servers     a second broker that acknowledges slowly, a worker of Kafka Connect with exactly-once delivery
    export_steps     exports that are killed or frozen at each operation on a file (cut.c)
    copying          a COPY, and the positions that Kafka Connect saves during it
"""

from tests.harness.database import Database
from tests.harness.names import Names

__all__ = ["Database", "Names"]
