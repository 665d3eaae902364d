"""Starts servers that a stack does not have: a second broker, and a worker with exactly-once delivery."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from confluent_kafka.admin import AdminClient, NewTopic

from devstack import Stack, process
from devstack.servers import Connect, Kafka, Server, Site
from devstack.stack import wait_ready
from tests.harness.proxy import Proxy, proxy
from tests.harness.redis_servers import free_port

SECOND = 2
"""The id of the second broker."""
_PRODUCE = 0
"""The number of produce requests in Kafka's protocol."""
_HEAP = "384m"


class _Broker(Kafka):
    """A second broker in the cluster of a stack. Clients reach it through a proxy."""

    name = "kafka-2"

    def __init__(self, site: Site, advertised: str) -> None:
        super().__init__(site)
        self._advertised = advertised

    def settings(self) -> dict[str, object]:
        return super().settings() | {
            "process.roles": "broker",
            "node.id": SECOND,
            "listeners": f"PLAINTEXT://{self.address}",
            "advertised.listeners": f"PLAINTEXT://{self._advertised}",
        }

    def cluster_id(self) -> str:
        """Returns the id of the stack's cluster."""
        lines = (self.site.data / "kafka" / "data" / "meta.properties").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))


class _ExactlyOnce(Connect):
    """A worker of its own group, whose connectors write in transactions."""

    name = "connect-exactly-once"

    def settings(self) -> dict[str, object]:
        return super().settings() | {
            "group.id": "exactly-once",
            "config.storage.topic": "exactly-once-configs",
            "offset.storage.topic": "exactly-once-offsets",
            "status.storage.topic": "exactly-once-status",
            "exactly.once.source.support": "enabled",
        }


class SlowBroker:
    """The second broker. While it stalls, it acknowledges no record: produce requests do not reach it.

    It answers all other requests, as a broker with a slow disk can do.
    """

    def __init__(self, link: Proxy) -> None:
        self._accepts = threading.Event()
        self._accepts.set()
        self.held = 0
        """Produce requests that had to wait."""
        link.request = self._forward

    def stall(self) -> None:
        self._accepts.clear()

    def resume(self) -> None:
        self._accepts.set()

    def _forward(self, frame: bytes) -> bytes:
        if struct.unpack(">h", frame[4:6])[0] == _PRODUCE and not self._accepts.is_set():
            self.held += 1
            self._accepts.wait()
        return frame


@contextmanager
def slow_broker(stack: Stack) -> Iterator[SlowBroker]:
    """Adds a broker to the cluster of a stack. Kafka places new topics on both, so the stack cannot be used again."""
    site = _site(stack, _Broker.name)
    with proxy(f"127.0.0.1:{site.ports[_Broker.name]}") as link:
        broker = SlowBroker(link)
        try:
            with _running(_Broker(site, link.address)):
                yield broker
        finally:
            broker.resume()


@contextmanager
def exactly_once_connect(stack: Stack) -> Iterator[tuple[str, str]]:
    """Runs a worker with `exactly.once.source.support`. Yields its URL and the name of its topic of offsets."""
    worker = _ExactlyOnce(_site(stack, _ExactlyOnce.name))
    with _running(worker):
        yield worker.url, str(worker.settings()["offset.storage.topic"])


def create_on(stack: Stack, topic: str, *brokers: int) -> None:
    """Creates a topic with one partition for each of these brokers."""
    wanted = NewTopic(topic, num_partitions=len(brokers), replica_assignment=[[broker] for broker in brokers])
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    admin.create_topics([wanted])[topic].result(30)


def _site(stack: Stack, name: str) -> Site:
    site = stack.site
    return replace(site, ports={**site.ports, name: free_port()}, heaps={**site.heaps, name: _HEAP})


@contextmanager
def _running(server: Server) -> Iterator[None]:
    server.prepare()
    started = process.spawn(
        server.command(), account=server.site.account, env=server.env(), cwd=server.folder, log=server.log
    )
    try:
        wait_ready(server, started, threading.Event())
        yield
    finally:
        started.kill()
