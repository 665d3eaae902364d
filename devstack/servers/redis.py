"""Runs Redis as one node, with an append-only file and without eviction."""

import socket
from pathlib import Path

from devstack import system
from devstack.ports import HOST
from devstack.servers.base import Server


class Redis(Server):
    """Describes a Redis server without a password."""

    name = "redis"
    port_names = ("redis",)
    java = False

    @property
    def url(self) -> str:
        """Returns the URL of database 0."""
        return f"redis://{self.address}/0"

    def prepare(self) -> None:
        """Writes redis.conf."""
        self.make_folder()
        settings = {
            "bind": HOST,
            "port": self.port,
            "dir": self.folder,
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        self.write("redis.conf", "".join(f"{key} {value}\n" for key, value in settings.items()))

    def command(self) -> list[str | Path]:
        """Returns the command of the server."""
        return [system.require(system.redis_server(), "Redis"), self.folder / "redis.conf"]

    def call(self, command: str) -> str:
        """Sends an inline command and returns the start of the reply."""
        with socket.create_connection((HOST, self.port), timeout=3) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65536).decode()

    def ready(self) -> bool:
        """Returns whether the server replies to PING. While it loads its file, it replies with an error."""
        return self.call("PING").startswith("+PONG")

    def version(self) -> str:
        """Reads the version from INFO."""
        return self.call("INFO server").partition("redis_version:")[2].split()[0]
