"""Runs Kafka as one node in KRaft mode, with broker and controller in one process.

The broker never creates topics automatically (`auto.create.topics.enable=false`). A consumer of a missing topic must
get an error. Kafka Connect creates its own topics. It creates the topics of a connector if the configuration has
`topic.creation.*`. The syncer creates the topics of its tables.
"""

import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from devstack import downloads, process
from devstack.ports import HOST, is_open
from devstack.servers.base import LOG4J2, Server, properties

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Kafka(Server):
    """Describes one broker. All replication factors are 1."""

    name = "kafka"
    port_names = ("kafka", "kafka-controller")

    @property
    def url(self) -> str:
        """Returns the `bootstrap.servers`."""
        return self.address

    def settings(self) -> dict[str, object]:
        """Returns the content of server.properties."""
        controller = f"{HOST}:{self.site.ports['kafka-controller']}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",  # a setting, not part of the data: the port may change
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
            # for tests: groups form immediately, and dead members are detected early
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "log.segment.delete.delay.ms": 1000,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        }

    def prepare(self) -> None:
        """Writes the properties. Formats the empty log the first time."""
        self.make_folder()
        self.write("log4j2.properties", LOG4J2)
        self.write("server.properties", properties(self.settings()))
        if not (self.folder / "data" / "meta.properties").exists():
            storage = ["kafka.tools.StorageTool", "format", "-t", self.cluster_id(), "-c", "server.properties"]
            command = [*self.run_java("256m"), *storage]
            process.run(command, account=self.site.account, env=self.env(), cwd=self.folder)

    def cluster_id(self) -> str:
        """Returns the id of a new cluster."""
        return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")

    def command(self) -> list[str | Path]:
        """Returns the command of the broker."""
        return [*self.run_java(self.heap()), "kafka.Kafka", "server.properties"]

    def ready(self) -> bool:
        """Returns whether the log reports a started broker and the port is open.

        The open port alone is not enough: the broker opens it before it serves requests.
        """
        return "Kafka Server started" in self.log.read_text(errors="replace") and is_open(self.port)

    def version(self) -> str:
        """Returns the pinned version, because the protocol does not report the version of a broker."""
        return downloads.pins()["kafka"]
