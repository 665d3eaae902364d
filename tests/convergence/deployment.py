"""Runs the syncer as an operator does: a folder of read models, a connector, and settings in the environment."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import urllib3

from devstack import Stack
from tests.harness import Database, Names
from tests.harness.names import remove_keys
from tests.harness.process import SyncerProcess
from tests.harness.settings import environment

MODELS = ("people", "projects", "tasks", "tenants")
_HERE = Path(__file__).parent
_CONNECTOR = _HERE.parents[1] / "connectors" / "shop.json"

# Batches are small, so that a few hundred rows exceed every limit. Intervals are short, so that processes that take
# minutes in production take seconds here.
_SETTINGS = {
    "PIPELINE__FAN_OUT": "15",
    "PIPELINE__CHUNK_DOCUMENTS": "10",
    "PIPELINE__MAX_RECORDS": "200",
    "PIPELINE__WORK_LANES": "2",
    "PIPELINE__COMMIT_INTERVAL": "200ms",
    "PIPELINE__MAX_AGE": "3s",
    "PIPELINE__GATE_TIMEOUT": "5s",
    "BACKFILL__RANGE_DOCUMENTS": "15",
    "KAFKA__PARTITIONS": "3",
    "KAFKA__PROPERTIES__SESSION_TIMEOUT_MS": "3000",
    "KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS": "500",
    "LOG__FORMAT": "json",
}


class Process(SyncerProcess):
    """A `syncer` command in the background."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path, folder: Path) -> None:
        self.port = _free_port()
        super().__init__(arguments, environment | {"SYNCER_HTTP__PORT": str(self.port)}, log, folder)

    def ready(self) -> bool:
        """Returns whether this is a daemon that keeps every read model in sync."""
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            return urllib3.request("GET", url, timeout=2, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def stop(self) -> None:
        """Sends SIGTERM and waits for a clean end. Raises AssertionError if it fails or does not end in time."""
        # A process that has just started may not have installed its signal handler yet.
        self.terminate((0, -signal.SIGTERM))


class Deployment:
    """Holds the settings, the connector and the processes of the syncer. `folder` is for files and logs."""

    def __init__(self, stack: Stack, database: Database, names: Names, folder: Path) -> None:
        self.stack, self.database, self.names, self.folder = stack, database, names, folder
        self.processes: list[Process] = []
        self.environment = self._settings()
        for kind in ("models", "connectors", "logs"):
            (folder / kind).mkdir()
        for model in MODELS:
            text = (_HERE / "readmodels" / f"{model}.yaml").read_text()
            (folder / "models" / f"{model}.yaml").write_text(text.replace("PREFIX", names.prefix))
        self._write_connector()

    def model(self, name: str) -> str:
        """Returns the name of a read model in this deployment."""
        return self.names(name)

    def create_tables(self) -> None:
        with self.database.connect() as connection:
            connection.execute((_HERE / "schema.sql").read_bytes())

    def run(self, *arguments: str, expect: Collection[int] = (0,)) -> str:
        """Runs a command to its end and returns its standard output. expect: the allowed exit statuses."""
        command = [sys.executable, "-m", "syncer", *arguments]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        failure = f"syncer {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert done.returncode in expect, failure
        return done.stdout

    def start(self, *arguments: str) -> Process:
        """Starts a command in the background."""
        log = self.folder / "logs" / f"{len(self.processes)}-{arguments[0]}.log"
        process = Process(arguments, self.environment, log, self.folder)
        self.processes.append(process)
        return process

    def status(self, expect: Collection[int] = (0,)) -> list[dict[str, Any]]:
        """Returns the status of each read model. expect: include 1 if read models may be unhealthy."""
        found: list[dict[str, Any]] = json.loads(self.run("status", "--json", expect=expect))["models"]
        return found

    def close(self) -> None:
        """Kills all running processes, and deletes the metadata of the syncer in Redis."""
        for process in self.processes:
            if process.alive:
                process.kill()
        remove_keys(self.stack.redis, f"version:*{self.names.prefix}*", f"syncer:*{self.names.prefix}*")

    def _settings(self) -> dict[str, str]:
        database, names = self.database, self.names
        return environment(
            self.stack,
            database,
            self.folder,
            topic_prefix=names.prefix,
            group_prefix=names.prefix,
            state_topic=names("state"),
        ) | {
            **{f"SYNCER_{name}": value for name, value in _SETTINGS.items()},
            "SHOP_PGHOST": database.host,
            "SHOP_PGPORT": str(database.port),
            "SHOP_PGUSER": database.user,
            "SHOP_PGPASSWORD": database.password,
            "SHOP_PGDATABASE": database.name,
        }

    def _write_connector(self) -> None:
        definition = json.loads(_CONNECTOR.read_text())
        definition["name"] = self.names("connector")
        definition["config"] |= {
            "topic.prefix": self.names.prefix,
            "slot.name": self.names.prefix,
            "publication.name": self.names.prefix,
            "table.include.list": r"public\..*,Büro\..*",
        }
        (self.folder / "connectors" / "connector.json").write_text(json.dumps(definition))


@contextlib.contextmanager
def deployed(stack: Stack, database: Database, names: Names, folder: Path) -> Iterator[Deployment]:
    """Creates empty tables and a deployment. Kills its processes at the end."""
    deployment = Deployment(stack, database, names, folder)
    try:
        deployment.create_tables()
        yield deployment
    finally:
        deployment.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
