"""Starts the servers that the syncer works with: real ones, without Docker, on loopback ports.

    python -m devstack up          # PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis
    python -m devstack down

The tests use it from Python:

    stack = devstack.start(home)
    stack.postgres, stack.kafka, stack.connect, stack.elasticsearch, stack.redis   # URLs
    stack.stop()

devstack serves development, tests and the demo. It starts one node of each server, with small heaps and known
passwords. It is not part of the wheel. It uses the standard library only, so it runs before the virtual
environment exists.

Reading order:

    launch       which servers start, and in which order
    stack        the operations on a running stack
    servers/     one file per server
    process      operating system processes
    downloads    the Java programs, checked against checksums.txt
    archives     other versions of PostgreSQL and Debezium
    system       the account, Debian packages, Java and Maven
    reaper       removes a stack after the process that started it has ended
"""

from devstack.errors import DevstackError
from devstack.launch import planned_versions, start
from devstack.servers import SERVERS
from devstack.stack import Stack, load

__all__ = ["SERVERS", "DevstackError", "Stack", "load", "planned_versions", "start"]
