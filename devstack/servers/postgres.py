"""Runs PostgreSQL with `wal_level=logical`, its own cluster, password authentication, and TCP on loopback only."""

import re
import signal
import socket
import struct
from pathlib import Path

from devstack import process, system
from devstack.errors import DevstackError
from devstack.ports import HOST
from devstack.servers.base import Server

USER = PASSWORD = "syncer"
PROTOCOL = 3 << 16

SETTINGS = {
    "timezone": "UTC",
    "listen_addresses": f"'{HOST}'",
    "unix_socket_directories": "''",  # socket paths are limited to 107 bytes, folders are not
    "wal_level": "logical",
    "max_replication_slots": 64,
    "max_wal_senders": 64,
    "max_connections": 200,
    "max_prepared_transactions": 16,  # so that tests can hold a transaction between PREPARE and COMMIT
    "max_slot_wal_keep_size": "4GB",  # a forgotten replication slot must not fill the disk
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "random_page_cost": 1.1,
    "log_line_prefix": "'%m [%p] %d '",
    "log_checkpoints": "off",
}


class Postgres(Server):
    """Describes a primary. The superuser is `syncer` with the password `syncer`."""

    name = "postgres"
    port_names = ("postgres",)
    java = False
    stop_signal = signal.SIGINT  # fast shutdown: ends sessions and leaves the data clean

    @property
    def url(self) -> str:
        """Returns a libpq connection URL of the superuser."""
        return f"postgresql://{USER}:{PASSWORD}@{self.address}/postgres"

    def programs(self) -> Path:
        """Returns the folder of the programs of the chosen PostgreSQL version."""
        return self.site.downloads.postgres or system.require(system.postgres_bin(), "PostgreSQL")

    def has(self, name: str) -> bool:
        """Returns whether a program exists. Archives have no client programs."""
        return (self.programs() / name).exists()

    def program(self, name: str) -> Path:
        """Returns the path of a PostgreSQL program. Raises DevstackError if it is missing."""
        if not self.has(name):
            raise DevstackError(f"no {name} in {self.programs()}")
        return self.programs() / name

    def prepare(self) -> None:
        """Runs initdb the first time and writes postgresql.conf. Raises DevstackError for data of another version."""
        self.make_folder()
        data = self.folder / "data"
        if not (data / "PG_VERSION").exists():
            secret = self.write("password", PASSWORD)
            options = f"--username={USER} --pwfile={secret} --auth=scram-sha-256".split(" ")
            layout = "--encoding=UTF8 --locale=C.UTF-8 --no-sync".split()
            initdb: list[str | Path] = [self.program("initdb"), "-D", data, *options, *layout]
            process.run(initdb, account=self.site.account, env=self.env(), cwd=self.folder)
        made_by = (data / "PG_VERSION").read_text().strip()
        if not re.match(rf"{made_by}\b", version := self.version()):
            raise DevstackError(
                f"the data in {data} belongs to PostgreSQL {made_by}, but this is PostgreSQL {version}",
                f"To use that version: python -m devstack up --version postgres={made_by}\n"
                "  To delete the data: python -m devstack down --purge",
            )
        settings = {"port": self.port, **SETTINGS}
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        self.write("data/postgresql.conf", text)

    def copy_from(self, primary: str) -> None:
        """Copies the data of a running primary, to start as its standby. Call it before `prepare`."""
        self.make_folder()
        options = [f"--pgdata={self.folder / 'data'}", f"--dbname={primary}", "--write-recovery-conf"]
        command: list[str | Path] = [
            self.program("pg_basebackup"),
            *options,
            "--checkpoint=fast",
            "--no-sync",
        ]
        process.run(command, account=self.site.account, env=self.env(), cwd=self.folder)

    def command(self) -> list[str | Path]:
        """Returns the command of the postmaster."""
        return [self.program("postgres"), "-D", self.folder / "data"]

    def ready(self) -> bool:
        """Returns whether the server accepts sessions.

        It uses the check of pg_isready: a server that requests the password ("R") is ready.
        """
        request = struct.pack("!I", PROTOCOL) + f"user\0{USER}\0database\0postgres\0\0".encode()
        with socket.create_connection((HOST, self.port), timeout=3) as connection:
            connection.sendall(struct.pack("!I", 4 + len(request)) + request)
            return connection.recv(4096)[:1] == b"R"  # an error ("E") while it starts

    def version(self) -> str:
        """Returns the version of the program. A query would need a client library."""
        return system.version_of(self.program("postgres"))
