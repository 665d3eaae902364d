"""The servers the syncer works with, real and without Docker, on loopback ports.

    python -m devstack up          # PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis
    python -m devstack down

and from Python, as the tests do it:

    stack = devstack.start(home)
    stack.postgres, stack.kafka, stack.connect, stack.elasticsearch, stack.redis   # URLs
    stack.stop()

It is for development, tests and the demo: one node of each, small heaps, known passwords. It is not part of
the wheel and uses nothing but the standard library, so it runs before the virtual environment exists.

Reading order: `launch` (what is started, in which order), `stack` (what can be done with it), `servers/`
(a file a server), `process`, `downloads`, `archives`, `system`.
"""

from devstack.errors import DevstackError
from devstack.launch import planned_versions, start
from devstack.servers import SERVERS
from devstack.stack import Stack, load

__all__ = ["SERVERS", "DevstackError", "Stack", "load", "planned_versions", "start"]
