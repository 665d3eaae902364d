"""Injects faults into the servers, and into the connections between them and the syncer.

The connections of the syncer to PostgreSQL, Elasticsearch and Redis go through proxies. Those of Debezium, of the
writers and of the test do not. Every method ends its fault before it returns.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
import urllib3
from psycopg.conninfo import make_conninfo

from devstack import Stack
from tests.convergence.deployment import Deployment
from tests.convergence.operations import COPY_PROJECTS
from tests.harness.copying import SavedPositions, copy
from tests.harness.fault_proxy import Answer, FaultProxy, Request, fault_proxy
from tests.harness.proxy import Proxy, proxy

# Larger than in `tests/convergence`, because the backlogs are larger.
_SIZES = {
    "SYNCER_PIPELINE__FAN_OUT": "500",
    "SYNCER_PIPELINE__CHUNK_DOCUMENTS": "200",
    "SYNCER_PIPELINE__MAX_RECORDS": "2000",
    "SYNCER_BACKFILL__RANGE_DOCUMENTS": "200",
}
_COPIED = 3000
_BUSY = b'{"error":{"type":"circuit_breaking_exception","reason":"too much at once"},"status":429}'


class Servers:
    """Injects faults into the servers of a deployment. Use one thread per server."""

    def __init__(self, deployment: Deployment, bulk_proxy: FaultProxy, proxies: dict[str, Proxy]) -> None:
        self.stack, self.deployment = deployment.stack, deployment
        self.bulk_proxy, self.proxies = bulk_proxy, proxies
        self.losses: list[tuple[float, float]] = []
        """Periods in which Redis may have lost acknowledged documents, in Unix seconds."""
        self._columns = self._copied = 0

    # -- servers -------------------------------------------------------------------------------------------

    def kill(self, name: str, down: float) -> None:
        """Sends SIGKILL to a server. Starts it again after the given number of seconds."""
        self.stack.kill(name)
        time.sleep(down)
        self.stack.launch(name)

    def kill_connect_during_copy(self, down: float) -> None:
        """Runs a COPY and kills Kafka Connect as soon as it has saved a position inside the COPY.

        down: seconds until it starts again.
        """
        self._copied += 1
        first = self._copied * 1_000_000_000
        rows = ((first + n, "copied", "open", "2024-02-29T12:00Z") for n in range(_COPIED))
        positions = SavedPositions(self.stack, self.deployment.names("connector"))
        with contextlib.closing(positions), contextlib.suppress(psycopg.OperationalError):  # PostgreSQL may be down
            positions.saved_inside(copy(self.deployment.database, COPY_PROJECTS, rows), 30)
        self.kill("connect", down)

    def restart(self, name: str) -> None:
        """Stops a server cleanly and starts it again."""
        self.stack.restart(name)

    def crash_postgres(self, down: float) -> None:
        """Shuts PostgreSQL down in immediate mode. Asynchronous commits that are not on disk are lost."""
        self.stack.kill("postgres", signal.SIGQUIT)
        self.stack.processes["postgres"].wait_gone(20)
        time.sleep(down)
        self.stack.launch("postgres")

    def flush_redis(self) -> None:
        """Deletes all documents and all metadata of the syncer in Redis."""
        began = time.time()
        self.losses.append((began, math.inf))
        with redis.Redis.from_url(self.stack.redis) as client:
            client.flushall()
        self.losses[-1] = began, time.time()

    def truncate_table(self) -> None:
        """Deletes all rows of the tables of the sink `postgres`."""
        with psycopg.connect(self.deployment.reads, autocommit=True) as session:
            session.execute("SET lock_timeout = '5s'")
            find = "SELECT relname FROM pg_class WHERE relnamespace = 'read'::regnamespace AND relname ~ '_\\d{6}$'"
            for (name,) in session.execute(find).fetchall():
                session.execute(f"TRUNCATE read.{name}".encode())

    def stall_commits(self, seconds: float) -> None:
        """Lets commits wait for a synchronous standby that does not exist.

        Such commits are in the WAL, and so in Kafka, but no session sees them yet.
        """
        with self._admin() as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            admin.execute("SELECT pg_reload_conf()")
            try:
                time.sleep(seconds)
            finally:
                admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
                admin.execute("SELECT pg_reload_conf()")

    def restart_connector(self) -> None:
        """Restarts the task of the connector at its last saved offset. Some events arrive twice."""
        url = f"{self.stack.connect}/connectors/{self.deployment.names('connector')}/restart"
        urllib3.request("POST", f"{url}?includeTasks=true", timeout=30)

    def change_columns(self) -> None:
        """Adds a column with a value in every row, and drops another one, as a migration does.

        Every second call rewrites the table.
        """
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
        """Cuts the connections of the syncer to a server, even during a request, and refuses new ones."""
        self.proxies[name].down()
        time.sleep(seconds)
        self.proxies[name].up()

    def stall(self, name: str, seconds: float) -> None:
        """Forwards no data on the connections of the syncer. They stay open and report no error."""
        self.proxies[name].stall()
        time.sleep(seconds)
        self.proxies[name].resume()

    def answer_bulk(self, answer: Answer, seconds: float) -> None:
        """Replaces the responses of Elasticsearch to `_bulk`.

        answer: "cut" drops the request. "cut after" lets Elasticsearch process it and drops the response.
        """

        def rule(request: Request) -> Answer:
            return answer if "_bulk" in request.path else "pass"

        self.bulk_proxy.rule = rule
        time.sleep(seconds)
        self.bulk_proxy.rule = lambda request: "pass"

    def busy(self, seconds: float) -> None:
        """Lets Elasticsearch reject `_bulk` requests because of overload (429)."""
        self.answer_bulk((429, _BUSY), seconds)

    def start_missing(self) -> None:
        """Starts every server that is not running."""
        for name in ("postgres", "kafka", "connect", "elasticsearch", "redis"):
            if name not in self.stack.running():
                self.stack.launch(name)

    @contextmanager
    def _admin(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        with psycopg.connect(self.stack.postgres, autocommit=True) as admin:
            yield admin


@contextmanager
def proxied(deployment: Deployment) -> Iterator[Servers]:
    """Puts proxies between the syncer of the deployment and the servers."""
    stack: Stack = deployment.stack
    proxies, environment = {}, {}
    with contextlib.ExitStack() as closing:
        bulk_proxy = closing.enter_context(fault_proxy(stack.elasticsearch))
        for name, url in (
            ("postgres", deployment.database.dsn),
            ("redis", stack.redis),
            ("elasticsearch", bulk_proxy.url),
        ):
            link = closing.enter_context(proxy(f"127.0.0.1:{urlsplit(url).port}"))
            proxies[name], environment[name] = link, _through(url, link.port)
        deployment.environment |= _SIZES | {
            "SYNCER_POSTGRES__DSN": environment["postgres"],
            "SYNCER_POSTGRES_SINK__DSN": make_conninfo(deployment.reads, port=proxies["postgres"].port),
            "SYNCER_REDIS__URL": environment["redis"],
            "SYNCER_ELASTICSEARCH__URL": environment["elasticsearch"],
        }
        _send_slowly(deployment)
        yield Servers(deployment, bulk_proxy, proxies)


def _send_slowly(deployment: Deployment) -> None:
    """Sends each record in its own request, so that Kafka Connect saves positions between the rows of a page."""
    for file in (deployment.folder / "connectors").glob("*.json"):
        definition = json.loads(file.read_text())
        definition["config"]["producer.override.batch.size"] = "1"
        file.write_text(json.dumps(definition))


def _through(url: str, port: int) -> str:
    """Returns the URL with 127.0.0.1 and the port of a proxy."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}"))
