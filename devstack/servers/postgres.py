"""PostgreSQL with a logical WAL: a cluster of its own, password authentication, TCP on loopback only."""

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
    "unix_socket_directories": "''",  # their paths are limited to 107 bytes, ours are not
    "wal_level": "logical",
    "max_replication_slots": 64,
    "max_wal_senders": 64,
    "max_connections": 200,
    "max_prepared_transactions": 16,  # so that tests can hold a transaction between PREPARE and COMMIT
    "max_slot_wal_keep_size": "4GB",  # a forgotten slot must not fill the disk
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "random_page_cost": 1.1,
    "log_line_prefix": "'%m [%p] %d '",
    "log_checkpoints": "off",
}


class Postgres(Server):
    """A primary; the superuser `syncer`, password `syncer`."""

    name = "postgres"
    port_names = ("postgres",)
    java = False
    stop_signal = signal.SIGINT  # "fast": sessions are ended, the data is left clean

    @property
    def url(self) -> str:
        """A libpq connection URL of the superuser."""
        return f"postgresql://{USER}:{PASSWORD}@{self.address}/postgres"

    def programs(self) -> Path:
        """The folder of PostgreSQL's programs, of the version that was chosen."""
        return self.site.downloads.postgres or system.require(system.postgres_bin(), "PostgreSQL")

    def has(self, name: str) -> bool:
        """Whether a program is there: an archive has no client programs."""
        return (self.programs() / name).exists()

    def program(self, name: str) -> Path:
        """One of PostgreSQL's programs. Raises DevstackError if it is missing."""
        if not self.has(name):
            raise DevstackError(f"no {name} in {self.programs()}")
        return self.programs() / name

    def prepare(self) -> None:
        """initdb, the first time; postgresql.conf, every time."""
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
                f"{data} was made by PostgreSQL {made_by}, and this is {version}",
                f"choose it (--version postgres={made_by}), or delete the data: down --purge",
            )
        settings = {"port": self.port, **SETTINGS}
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        self.write("data/postgresql.conf", text)

    def copy_from(self, primary: str) -> None:
        """Make the data a copy of a running cluster's, to start as its standby; before `prepare`."""
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
        """The postmaster, in the foreground."""
        return [self.program("postgres"), "-D", self.folder / "data"]

    def ready(self) -> bool:
        """It would let a session in. Asked as pg_isready does: it is, once it asks for the password."""
        request = struct.pack("!I", PROTOCOL) + f"user\0{USER}\0database\0postgres\0\0".encode()
        with socket.create_connection((HOST, self.port), timeout=3) as connection:
            connection.sendall(struct.pack("!I", 4 + len(request)) + request)
            return connection.recv(4096)[:1] == b"R"  # "E" while it starts

    def version(self) -> str:
        """The program's: asking the server would take a client."""
        return system.version_of(self.program("postgres"))
