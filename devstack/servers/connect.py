"""Runs Kafka Connect in distributed mode, with the Debezium connector for PostgreSQL."""

from pathlib import Path

from devstack.servers.base import LOG4J2, Server, get_json, properties
from devstack.servers.kafka import MAX_MESSAGE_BYTES

CONNECTOR = "io.debezium.connector.postgresql.PostgresConnector"


class Connect(Server):
    """Describes one worker."""

    name = "connect"
    needs = ("kafka",)
    port_names = ("connect",)

    def settings(self) -> dict[str, object]:
        """Returns the content of connect.properties."""
        json_converter = "org.apache.kafka.connect.json.JsonConverter"
        return {
            "bootstrap.servers": f"127.0.0.1:{self.site.ports['kafka']}",
            "group.id": "devstack-connect",
            "listeners": self.url,
            "plugin.path": self.site.downloads.plugin_path,
            "plugin.discovery": "service_load",
            "key.converter": json_converter,
            "key.converter.schemas.enable": "false",
            "value.converter": json_converter,
            "value.converter.schemas.enable": "false",
            "connector.client.config.override.policy": "All",
            "config.storage.topic": "connect-configs",
            "config.storage.replication.factor": 1,
            "offset.storage.topic": "connect-offsets",
            "offset.storage.replication.factor": 1,
            "offset.storage.partitions": 1,
            "status.storage.topic": "connect-status",
            "status.storage.replication.factor": 1,
            "status.storage.partitions": 1,
            "offset.flush.interval.ms": 50,  # The watermark of a read model waits for it.
            "scheduled.rebalance.max.delay.ms": 0,
            "producer.linger.ms": 0,  # The default is 5 ms since Kafka 4.0: a large part of the latency.
            "producer.max.request.size": MAX_MESSAGE_BYTES,
        }

    def prepare(self) -> None:
        """Writes the properties. The worker stores all data in Kafka."""
        self.make_folder()
        self.write("log4j2.properties", LOG4J2)
        self.write("connect.properties", properties(self.settings()))

    def command(self) -> list[str | Path]:
        """Returns the command of the worker."""
        worker = "org.apache.kafka.connect.cli.ConnectDistributed"
        return [*self.run_java(self.heap()), worker, "connect.properties"]

    def ready(self) -> bool:
        """Returns whether the worker has joined its group and serves the REST API."""
        return isinstance(get_json(f"{self.url}/connectors"), list)

    def version(self) -> str:
        """Returns the versions of the worker and of Debezium."""
        plugins = get_json(f"{self.url}/connector-plugins")
        debezium = next((plugin["version"] for plugin in plugins if plugin["class"] == CONNECTOR), "missing")
        return f"{get_json(self.url)['version']}, Debezium {debezium}"
