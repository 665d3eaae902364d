"""What is done to the servers, and to the connections between them and the syncer.

The syncer's connections to PostgreSQL, Elasticsearch and Redis go through proxies; Debezium's, the writers'
and the test's own do not. What a method breaks is whole again when it returns.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
import urllib3

from devstack import Stack
from tests.convergence.deployment import Deployment
from tests.convergence.operations import COPY_PROJECTS
from tests.harness.copying import SavedPositions, copy
from tests.harness.fault_proxy import Answer, FaultProxy, Request, fault_proxy
from tests.harness.proxy import Proxy, proxy

# Larger than those of `tests/convergence`: here there is more to catch up with.
_SIZES = {
    "SYNCER_PIPELINE__FAN_OUT": "500",
    "SYNCER_PIPELINE__CHUNK_DOCUMENTS": "200",
    "SYNCER_PIPELINE__MAX_RECORDS": "2000",
    "SYNCER_BACKFILL__RANGE_DOCUMENTS": "200",
}
_COPIED = 3000
_BUSY = b'{"error":{"type":"circuit_breaking_exception","reason":"too much at once"},"status":429}'


class Servers:
    """The stack behind a deployment. For one thread a server."""

    def __init__(self, deployment: Deployment, search: FaultProxy, wires: dict[str, Proxy]) -> None:
        self.stack, self.deployment = deployment.stack, deployment
        self.search, self.wires = search, wires
        self._columns = self._copied = 0

    # -- servers -------------------------------------------------------------------------------------------

    def kill(self, name: str, down: float) -> None:
        """SIGKILL; started again after so many seconds."""
        self.stack.kill(name)
        time.sleep(down)
        self.stack.launch(name)

    def kill_connect_amid_copy(self, down: float) -> None:
        """SIGKILL as soon as Connect has saved a position inside of a COPY of its own; started again after
        the given seconds."""
        self._copied += 1
        first = self._copied * 1_000_000_000
        rows = ((first + n, "copied", "open", "2024-02-29T12:00Z") for n in range(_COPIED))
        positions = SavedPositions(self.stack, self.deployment.names("connector"))
        with contextlib.closing(positions), contextlib.suppress(psycopg.OperationalError):  # it may be down
            positions.saved_inside(copy(self.deployment.database, COPY_PROJECTS, rows), 30)
        self.kill("connect", down)

    def restart(self, name: str) -> None:
        """In its orderly way."""
        self.stack.restart(name)

    def crash_postgres(self, down: float) -> None:
        """An immediate shutdown: what was committed asynchronously and is not on disk is lost."""
        self.stack.kill("postgres", signal.SIGQUIT)
        self.stack.processes["postgres"].wait_gone(20)
        time.sleep(down)
        self.stack.launch("postgres")

    def flush_redis(self) -> None:
        """All documents, and all that the syncer knows of them there, are gone."""
        with redis.Redis.from_url(self.stack.redis) as client:
            client.flushall()

    def stall_commits(self, seconds: float) -> None:
        """Commits are in the log, and so in Kafka, and visible to nobody: a synchronous standby is silent."""
        with self._admin() as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            admin.execute("SELECT pg_reload_conf()")
            try:
                time.sleep(seconds)
            finally:
                admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
                admin.execute("SELECT pg_reload_conf()")

    def restart_connector(self) -> None:
        """The connector's task begins again at its last offset: events come twice."""
        url = f"{self.stack.connect}/connectors/{self.deployment.names('connector')}/restart"
        urllib3.request("POST", f"{url}?includeTasks=true", timeout=30)

    def change_columns(self) -> None:
        """A column comes, with a value in every row, and another goes: a migration of the application. Every
        other time the table is rewritten for it."""
        self._columns += 1
        value = ("7", "random()")[self._columns % 2]
        with self.deployment.database.connect() as session:
            session.execute("SET lock_timeout = '500ms'")
            for statement in (
                f"ALTER TABLE projects ADD COLUMN more_{self._columns} float DEFAULT {value}",
                f"ALTER TABLE projects DROP COLUMN IF EXISTS more_{self._columns - 1}",
            ):
                for _ in range(40):
                    with contextlib.suppress(psycopg.errors.LockNotAvailable):
                        session.execute(statement.encode())
                        break

    # -- connections ---------------------------------------------------------------------------------------

    def cut(self, name: str, seconds: float) -> None:
        """Cut the syncer's connections to a server amid whatever they carry, and refuse new ones."""
        self.wires[name].down()
        time.sleep(seconds)
        self.wires[name].up()

    def stall(self, name: str, seconds: float) -> None:
        """Nothing gets through, and nobody is told."""
        self.wires[name].stall()
        time.sleep(seconds)
        self.wires[name].resume()

    def answer(self, answer: Answer, seconds: float) -> None:
        """Of Elasticsearch, to `_bulk`: `cut` before it is done, `cut after` (done, and nobody knows)."""

        def rule(request: Request) -> Answer:
            return answer if "_bulk" in request.path else "pass"

        self.search.rule = rule
        time.sleep(seconds)
        self.search.rule = lambda request: "pass"

    def busy(self, seconds: float) -> None:
        """Elasticsearch has too much to do."""
        self.answer((429, _BUSY), seconds)

    def whole(self) -> None:
        """Every server runs, and every connection may be made."""
        for name in ("postgres", "kafka", "connect", "elasticsearch", "redis"):
            if name not in self.stack.running():
                self.stack.launch(name)

    @contextmanager
    def _admin(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        with psycopg.connect(self.stack.postgres, autocommit=True) as admin:
            yield admin


@contextmanager
def between(deployment: Deployment) -> Iterator[Servers]:
    """Puts the proxies between the deployment's syncer and the servers."""
    stack: Stack = deployment.stack
    wires, environment = {}, {}
    with contextlib.ExitStack() as closing:
        search = closing.enter_context(fault_proxy(stack.elasticsearch))
        for name, url in (
            ("postgres", deployment.database.dsn),
            ("redis", stack.redis),
            ("elasticsearch", search.url),
        ):
            wire = closing.enter_context(proxy(f"127.0.0.1:{urlsplit(url).port}"))
            wires[name], environment[name] = wire, _through(url, wire.port)
        deployment.environment |= _SIZES | {
            "SYNCER_POSTGRES__DSN": environment["postgres"],
            "SYNCER_REDIS__URL": environment["redis"],
            "SYNCER_ELASTICSEARCH__URL": environment["elasticsearch"],
        }
        _send_slowly(deployment)
        yield Servers(deployment, search, wires)


def _send_slowly(deployment: Deployment) -> None:
    """A record in a request, so that Connect saves positions amid the rows of a page."""
    for file in (deployment.folder / "connectors").glob("*.json"):
        definition = json.loads(file.read_text())
        definition["config"]["producer.override.batch.size"] = "1"
        file.write_text(json.dumps(definition))


def _through(url: str, port: int) -> str:
    """The same URL by way of another port of this machine."""
    parts = urlsplit(url)
    signed_in, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{signed_in}{at}127.0.0.1:{port}"))
