"""Runs the syncer on real servers, from an empty machine to verified documents. `make demo` starts it.

    1 servers      PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis
    2 the shop     an ordinary database with 50,000 orders; it knows nothing of the syncer
    3 check        the syncer reports what an operator has to do first
    4 connector    WAL → Kafka
    5 backfill     both read models
    6 run          the daemon, while a program uses the shop
    7 read         delay until a change is readable; a search, a summary, the lag
    8 verify       every document against PostgreSQL

The demo uses the command line of the syncer, as a user does. Settings come from `config/syncer.yaml` and the
environment. KEEP=1 leaves everything running. The exit status is 0 only if all documents are correct.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import psycopg

import devstack
from demo import place, reads, screen
from demo.running import servers, start, start_daemon, use_shop
from demo.screen import Failed, note, step, syncer
from syncer.cli import output

HOME = Path(os.environ.get("DEMO_HOME") or place.ROOT / ".devstack-demo").absolute()
ORDERS = int(os.environ.get("ORDERS") or "50000")
LIVE_SECONDS = float(os.environ.get("LIVE_SECONDS") or "20")
LIVE_RATE = 200
KEEP = os.environ.get("KEEP", "") not in ("", "0")


def run() -> None:
    """Runs all steps of the demo."""
    began = time.monotonic()
    step(1, "Servers", "PostgreSQL, Kafka, Kafka Connect with Debezium, Elasticsearch, Redis")
    with servers(HOME, hint="To stop them: make demo-down") as started:
        step(2, "The shop", f"an ordinary database with {ORDERS:,} orders, which knows nothing of the syncer")
        dsn, counts = place.make_shop(started, ORDERS)
        note(", ".join(f"{count:,} {table}" for table, count in counts.items()))
        settings = place.environment(started, dsn)
        place.adopt(settings)
        step(3, "Check", "the syncer reports what has to be done first, and how")
        syncer("check", expect=[1])
        apply_fix(dsn)
        step(4, "Connector", "WAL → Kafka")
        syncer("connectors", "apply", "--yes")
        step(5, "Backfill", "both read models")
        syncer("backfill")
        step(6, "Run", "the daemon keeps both in sync while a program uses the shop")
        start_daemon(started, HOME)
        reader = reads.Reader(started, dsn)
        use_shop(dsn, LIVE_SECONDS, LIVE_RATE)
        reads.catch_up(reader)
        step(7, "Read", "delay until a change is readable; a search, a summary, the lag")
        reads.freshness(reader)
        reads.search(started)
        reads.summary(reader)
        syncer("status", expect=(0, 1))  # 1: a busy server did not answer within a second
        step(8, "Verify", "every document against PostgreSQL")
        syncer("verify", "--patience", "120")
        output.echo()
        output.echo(f"Nothing differs. The demo took {time.monotonic() - began:.0f} s.", style="bold green")
        if KEEP:
            shop = start_webshop(started)
            started.keep()
    if KEEP:
        print_next_steps(reader, place.write_exports(HOME, settings), shop)
    else:
        output.echo("The servers are stopped and their data is deleted. To keep them: make demo KEEP=1")


def apply_fix(dsn: str) -> None:
    """Runs exactly the statement that the check printed."""
    statement = "ALTER TABLE public.orders REPLICA IDENTITY FULL"
    screen.command(f"psql -c '{statement}'")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def start_webshop(started: devstack.Stack) -> str:
    """Starts the web shop in the background and returns its URL. It stops together with the servers."""
    port = place.http_port(place.SHOP_PORT)
    url = f"http://127.0.0.1:{port}/"
    start(started, "webshop", [sys.executable, "-m", "demo.webshop", "--port", str(port)], HOME / "webshop.log", url)
    return url


def print_next_steps(reader: reads.Reader, exports: Path, shop: str) -> None:
    """Prints addresses to open, commands to paste, and the command that stops everything. shop: URL of the web shop."""
    started = reader.stack
    http = f"http://127.0.0.1:{os.environ['SYNCER_HTTP__PORT']}"
    documents = f"{started.elasticsearch}/orders"
    summary = f"redis-cli -u {started.redis} GET {reader.key}"
    output.echo(f"The syncer:  {http}/")
    output.echo(f"A web shop:  {shop}\n")
    output.echo("Everything is still running. To inspect it, run this in any terminal:\n")
    output.echo(f"  . {shlex.quote(str(exports))}\n")
    output.echo("It sets the addresses and adds the syncer to the PATH. After it:\n")
    output.echo("  syncer status")
    output.echo(f"  syncer preview orders {reader.order}")
    output.echo(f"  curl -s '{documents}/_doc/{reader.order}?pretty'")
    output.echo(f"  curl -s '{documents}/_search?q=items.product.name:lamp&size=1&pretty'")
    output.echo(f"  curl -s {http}/status")
    output.echo(f"  curl -s {http}/metrics")
    output.echo(f"  tail {shlex.quote(str(HOME / 'syncer.log'))}\n")
    output.echo("Change a row, and read the document:\n")
    output.echo(f"  psql {reader.dsn} -c \"UPDATE customers SET name = 'Your Name' WHERE id = {reader.customer}\"")
    output.echo(f"  {summary}")
    output.echo()
    output.echo(f"To watch the daemon, open its page: {http}/ (in a terminal: syncer top)")
    output.echo()
    output.echo("To stop everything and delete its data:")
    output.echo()
    output.echo("  make demo-down", style="bold")


def main() -> int:
    """Runs the demo. On failure, prints one message and returns 1."""
    try:
        run()
    except (Failed, devstack.DevstackError) as error:
        output.echo()
        output.echo("The demo failed.", style="bold red")
        output.echo(str(error))
        return 1
    except KeyboardInterrupt:
        output.echo("\nInterrupted. The servers are stopped and their data is deleted.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
