"""The main job on real servers, from nothing to checked documents: what `make demo` runs.

    1 servers      PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis
    2 the shop     an ordinary database with 50,000 orders; it knows nothing of the syncer
    3 check        what an operator has to do first, told by the syncer
    4 connect      the connector: WAL → Kafka
    5 backfill     both read models
    6 run          the daemon, while people use the shop
    7 read         a search, a summary, the lag
    8 verify       every document against PostgreSQL

Everything the syncer does here is done by its command line, as you would do it. Settings come from
`config/syncer.yaml` and the environment. KEEP=1 leaves it all running. Exit status 0 only if nothing differs.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson
import psycopg
import redis
import urllib3
from rich.console import Console
from rich.syntax import Syntax

import devstack
from demo import shop

HOME = Path(".devstack-demo")
ORDERS = int(os.environ.get("ORDERS", "50000"))
LIVE_SECONDS = float(os.environ.get("LIVE_SECONDS", "20"))
LIVE_RATE = 200
KEEP = os.environ.get("KEEP", "") not in ("", "0")

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


class Failed(Exception):
    """A step did not do what it should; the message says which."""


def step(number: int, title: str, text: str) -> None:
    console.print(f"\n[bold cyan]{number}  {title}[/]  [dim]{text}[/]")


def syncer(*arguments: str, expect: int = 0) -> str:
    """Run a command as a user would type it; its output goes to the terminal and is returned if piped."""
    console.print(f"[green]$[/] [bold]syncer {shlex.join(arguments)}[/]")
    done = subprocess.run([sys.executable, "-m", "syncer", *arguments], check=False)
    if done.returncode != expect:
        raise Failed(f"syncer {arguments[0]} ended with exit status {done.returncode}, not {expect}")
    return ""


def environment(stack: devstack.Stack, dsn: str) -> dict[str, str]:
    """What `config/syncer.yaml` leaves to the place it runs at."""
    at = urlsplit(dsn)
    return {
        "SYNCER_POSTGRES__DSN": dsn,
        "SYNCER_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
        "SYNCER_KAFKA__TOPIC_PREFIX": "shop",
        "SYNCER_CONNECT__URL": stack.connect,
        "SYNCER_ELASTICSEARCH__URL": stack.elasticsearch,
        "SYNCER_REDIS__URL": stack.redis,
        "SYNCER_HTTP__PORT": os.environ.get("SYNCER_HTTP__PORT", "8080"),
        "SHOP_PGHOST": at.hostname or "127.0.0.1",
        "SHOP_PGPORT": str(at.port),
        "SHOP_PGUSER": at.username or "",
        "SHOP_PGPASSWORD": at.password or "",
        "SHOP_PGDATABASE": at.path.lstrip("/"),
    }


def make_shop(stack: devstack.Stack) -> str:
    """A new database with the shop's tables and a few years of business; returns its DSN."""
    dsn = urlunsplit(urlsplit(stack.postgres)._replace(path="/shop"))
    with psycopg.connect(stack.postgres, autocommit=True) as admin:
        admin.execute("CREATE DATABASE shop")
    began = time.monotonic()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(Path(__file__).with_name("schema.sql").read_bytes())
        shop.seed(connection, customers=max(ORDERS // 25, 10), products=500, orders=ORDERS)
        counts = [
            f"{_scalar(connection, f'SELECT count(*) FROM {table}'):,} {table}"
            for table in ("customers", "products", "orders", "order_items")
        ]
    console.print(f"  {', '.join(counts)} in {time.monotonic() - began:.1f} s")
    return dsn


def operate(dsn: str) -> None:
    """What the check told to run, and no more."""
    statement = "ALTER TABLE public.orders REPLICA IDENTITY FULL"
    console.print(f"[green]$[/] [bold]psql -c '{statement}'[/]")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def daemon() -> Iterator[subprocess.Popen[bytes]]:
    """`syncer run` in the background, its log in a file; stopped at the end unless KEEP."""
    log = HOME / "syncer.log"
    console.print(f"[green]$[/] [bold]syncer run[/] [dim]> {log} &[/]")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "syncer", "run"], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{os.environ['SYNCER_HTTP__PORT']}/readyz"
        deadline = time.monotonic() + 60
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the daemon did not become ready; it said:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        console.print(f"  ready: [link={url}]{url}[/]")
        yield process
    finally:
        if not KEEP or sys.exc_info()[0] is not None:
            process.terminate()
            process.wait(30)


def people(dsn: str) -> None:
    """The shop is open."""
    command = f"python -m demo.shop --dsn … --seconds {LIVE_SECONDS:g} --rate {LIVE_RATE}"
    console.print(f"[green]$[/] [bold]{command}[/]")
    program = [sys.executable, "-m", "demo.shop", "--dsn", dsn]
    subprocess.run([*program, "--seconds", str(LIVE_SECONDS), "--rate", str(LIVE_RATE)], check=True)


def search(stack: devstack.Stack) -> None:
    query = {
        "size": 2,
        "query": {
            "bool": {
                "must": {"match": {"items.product.name": "oak lamp"}},
                "filter": [{"term": {"status": "paid"}}, {"range": {"total": {"gte": 300}}}],
            }
        },
        "sort": [{"placed_at": "desc"}],
        "_source": ["order_id", "status", "placed_at", "customer.name", "total", "items.product.name"],
        "aggs": {"by_country": {"terms": {"field": "customer.country", "size": 3}}},
    }
    console.print(f"[green]$[/] [bold]curl {stack.elasticsearch}/orders/_search -d[/]")
    _show(query)
    answer = orjson.loads(_post(f"{stack.elasticsearch}/orders/_search", query))
    hits = answer["hits"]
    _show(
        {
            "took": answer["took"],
            "total": hits["total"]["value"],
            "hits": [hit["_source"] for hit in hits["hits"]],
            "by_country": {b["key"]: b["doc_count"] for b in answer["aggregations"]["by_country"]["buckets"]},
        }
    )
    if not hits["hits"]:
        raise Failed("the search found nothing")


def summary(stack: devstack.Stack) -> None:
    key = f"customer:{random.Random(1).randint(1, max(ORDERS // 25, 10))}:summary"
    console.print(f"[green]$[/] [bold]redis-cli -u {stack.redis} GET {key}[/]")
    with redis.from_url(stack.redis) as client:
        value = client.get(key)
    if not value:
        raise Failed(f"there is no {key} in Redis")
    document: dict[str, Any] = orjson.loads(value)
    more = document["recent_orders"][2:]
    document["recent_orders"] = [*document["recent_orders"][:2], f"… {len(more)} more"]
    _show(document)


def run() -> None:
    began = time.monotonic()
    step(1, "Servers", "PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis")
    stack = devstack.start(HOME, ephemeral=True, say=lambda line: console.print(f"  {line}", highlight=False))
    try:
        step(2, "The shop", f"an ordinary database with {ORDERS:,} orders, which knows nothing of the syncer")
        dsn = make_shop(stack)
        os.environ.update(environment(stack, dsn))
        step(3, "Check", "what has to be done before, and how")
        syncer("check", expect=1)
        operate(dsn)
        step(4, "Connector", "WAL → Kafka")
        syncer("connectors", "apply", "--yes")
        step(5, "Backfill", "both read models")
        syncer("backfill")
        step(6, "Run", "the daemon keeps both in step, while people use the shop")
        with daemon():
            people(dsn)
            step(7, "Read", "Elasticsearch and Redis, directly; and how old what they say is")
            search(stack)
            summary(stack)
            syncer("status")
            step(8, "Verify", "every document against PostgreSQL")
            syncer("verify", "--patience", "120")
        console.print(f"\n[bold green]Nothing differs.[/] The demo took {time.monotonic() - began:.0f} s.")
        tell(stack, dsn)
    finally:
        if not KEEP:
            stack.stop()


def tell(stack: devstack.Stack, dsn: str) -> None:
    if not KEEP:
        console.print("To leave it running and look at it: [bold]make demo KEEP=1[/]")
        return
    port = os.environ["SYNCER_HTTP__PORT"]
    for what, url in {
        "search": f"{stack.elasticsearch}/orders/_search?pretty",
        "summaries": f"{stack.redis} (keys customer:ID:summary)",
        "lag": f"http://127.0.0.1:{port}/status",
        "metrics": f"http://127.0.0.1:{port}/metrics",
        "database": dsn,
    }.items():
        console.print(f"  {what:10} {url}")
    console.print(f"To stop it: [bold]kill the syncer, then python -m devstack down --home {HOME}[/]")


def _show(value: Any) -> None:
    console.print(Syntax(_json(value), "json", background_color="default"))


def _json(value: Any, indent: int = 0, width: int = 100) -> str:
    """JSON in which whatever fits on a line is on one."""
    short = orjson.dumps(value).decode()
    if len(short) + indent <= width or not isinstance(value, dict | list):
        return short
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [
            f'"{name}": {_json(item, indent + 2, width - len(name) - 4)}' for name, item in value.items()
        ]
    else:
        parts = [_json(item, indent + 2, width) for item in value]
    left, right = "{}" if isinstance(value, dict) else "[]"
    return f"{left}\n{inner}" + f",\n{inner}".join(parts) + f"\n{' ' * indent}{right}"


def _post(url: str, body: Any) -> bytes:
    headers = {"content-type": "application/json"}
    return urllib3.request("POST", url, body=orjson.dumps(body), headers=headers, timeout=30).data


def _ready(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _scalar(connection: psycopg.Connection[Any], statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return int(row[0])


def main() -> int:
    try:
        run()
    except (Failed, devstack.DevstackError) as error:
        console.print(f"\n[bold red]The demo failed.[/] {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
