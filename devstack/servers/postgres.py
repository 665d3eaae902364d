"""PostgreSQL with a logical WAL: a cluster of its own, password authentication, TCP on loopback only."""

import os
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from devstack import process, system
from devstack.errors import DevstackError
from devstack.ports import HOST
from devstack.servers.base import Server

USER = PASSWORD = "syncer"

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
    version_query: ClassVar[str] = "SHOW server_version"

    @property
    def url(self) -> str:
        """A libpq connection URL of the superuser."""
        return f"postgresql://{USER}:{PASSWORD}@{self.address}/postgres"

    def program(self, name: str) -> Path:
        """One of PostgreSQL's programs."""
        folder = system.postgres_bin()
        if not folder:
            raise DevstackError("no PostgreSQL found", "apt-get install -y postgresql")
        return folder / name

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

    def query(self, sql: str) -> str:
        """One value, asked as the superuser.

        Raises DevstackError with what psql says.
        """
        done = subprocess.run(
            [self.program("psql"), "--no-psqlrc", "-Atc", sql, self.url],
            env={**os.environ, "PGCONNECT_TIMEOUT": "3"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise DevstackError(done.stderr.strip())
        return done.stdout.strip()

    def ready(self) -> bool:
        """A session can be had."""
        return self.query("SELECT 1") == "1"

    def version(self) -> str:
        """Such as "15.14 (Debian …)"."""
        return self.query(self.version_query)
