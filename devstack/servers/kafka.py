"""Kafka: one node in KRaft mode, broker and controller in one process.

Topics are never created by the mere mention of a name (`auto.create.topics.enable=false`): a consumer that
asks for one that is not there must see so. Kafka Connect creates its own, and a connector's if its
configuration has `topic.creation.*`; the syncer creates those of its tables.
"""

import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from devstack import downloads, process
from devstack.ports import HOST, is_open
from devstack.servers.base import LOG4J2, Server, properties

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Kafka(Server):
    """One broker, replication factor 1 everywhere."""

    name = "kafka"
    port_names = ("kafka", "kafka-controller")

    @property
    def url(self) -> str:
        """bootstrap.servers"""
        return self.address

    def settings(self) -> dict[str, object]:
        """server.properties"""
        controller = f"{HOST}:{self.site.ports['kafka-controller']}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",  # not in the data, so that the port may change
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            # for tests: groups form at once, and their dead are noticed soon
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "log.segment.delete.delay.ms": 1000,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        }

    def prepare(self) -> None:
        """The properties, every time; an empty formatted log, the first."""
        self.make_folder()
        self.write("log4j2.properties", LOG4J2)
        self.write("server.properties", properties(self.settings()))
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
            storage = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", "server.properties"]
            command = [*self.run_java("256m"), *storage]
            process.run(command, account=self.site.account, env=self.env(), cwd=self.folder)

    def command(self) -> list[str | Path]:
        """The broker, in the foreground."""
        return [*self.run_java(self.heap()), "kafka.Kafka", "server.properties"]

    def ready(self) -> bool:
        """The port is opened before requests are served; the log tells when the broker has joined."""
        return "Kafka Server started" in self.log.read_text(errors="replace") and is_open(self.port)

    def version(self) -> str:
        """The protocol does not tell it: the version that runs is the pinned one."""
        return downloads.pins()["kafka"]
