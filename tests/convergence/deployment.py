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

from devstack import Stack
from tests.harness import Database, Names
from tests.harness.connector import POLL_INTERVAL
from tests.harness.names import remove_keys
from tests.harness.postgres_servers import reads_database
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

    def opened(self) -> set[str]:
        """Returns the read models whose lanes this daemon has started at least once."""
        lines = (line for line in self.log.read_text(errors="replace").splitlines() if "read model running" in line)
        return {json.loads(line)["model"] for line in lines if line.endswith("}")}  # the last line may be unfinished

    def stop(self) -> None:
        """Sends SIGTERM and waits for a clean end. Raises AssertionError if it fails or does not end in time."""
        # A process that has just started may not have installed its signal handler yet.
        self.terminate((0, -signal.SIGTERM))


class Deployment:
    """Holds the settings, the connector and the processes of the syncer. `folder` is for files and logs."""

    def __init__(self, stack: Stack, database: Database, names: Names, folder: Path, reads: str) -> None:
        """reads: the DSN for the sink `postgres`."""
        self.stack, self.database, self.names, self.folder, self.reads = stack, database, names, folder, reads
        self.processes: list[Process] = []
        self.environment = self._settings()
        for kind in ("models", "connectors", "logs"):
            (folder / kind).mkdir()
        self.models: list[str] = []
        for model in MODELS:
            self.declare(model, (_HERE / "readmodels" / f"{model}.yaml").read_text())
        self._write_connector()

    def declare(self, name: str, text: str) -> None:
        """Declares a read model. PREFIX stands for the prefix of the deployment."""
        (self.folder / "models" / f"{name}.yaml").write_text(text.replace("PREFIX", self.names.prefix))
        self.models.append(name)

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
            "SYNCER_POSTGRES_SINK__DSN": self.reads,
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
            "poll.interval.ms": POLL_INTERVAL,
        }
        (self.folder / "connectors" / "connector.json").write_text(json.dumps(definition))


@contextlib.contextmanager
def deployed(stack: Stack, database: Database, names: Names, folder: Path) -> Iterator[Deployment]:
    """Creates empty tables and a deployment. Kills its processes at the end."""
    with reads_database(stack.postgres) as reads:
        deployment = Deployment(stack, database, names, folder, reads)
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
