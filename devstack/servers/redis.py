"""Redis: one node, everything kept in an append-only file, nothing ever evicted."""

import socket
from pathlib import Path

from devstack import system
from devstack.ports import HOST
from devstack.servers.base import Server


class Redis(Server):
    """Redis without a password."""

    name = "redis"
    port_names = ("redis",)
    java = False

    @property
    def url(self) -> str:
        """Database 0."""
        return f"redis://{self.address}/0"

    def prepare(self) -> None:
        """redis.conf."""
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
        """The server, in the foreground."""
        return [system.require(system.redis_server(), "Redis"), self.folder / "redis.conf"]

    def ask(self, command: str) -> str:
        """An inline command and the start of its answer."""
        with socket.create_connection((HOST, self.port), timeout=3) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65536).decode()

    def ready(self) -> bool:
        """PING is answered; while it loads its file, it is answered with an error."""
        return self.ask("PING").startswith("+PONG")

    def version(self) -> str:
        """From INFO."""
        return self.ask("INFO server").partition("redis_version:")[2].split()[0]
