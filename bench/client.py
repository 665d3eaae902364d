"""Runs an ordinary application that updates single rows at a steady rate, each in its own transaction.

It prints a sample of the writes, one JSON line each, immediately after the commit: id, new value, monotonic seconds.
At the end it prints the number of writes and the duration. It is independent of the syncer.
"""

from __future__ import annotations

import sys
import threading
import time

import click
import orjson
import psycopg

_THREADS = 4


@click.command()
@click.option("--dsn", required=True)
@click.option("--rate", required=True, type=float, help="Transactions per second.")
@click.option("--seconds", required=True, type=float)
@click.option("--every", required=True, type=int, help="Print one of this number of writes.")
def main(dsn: str, rate: float, seconds: float, every: int) -> None:
    """Update orders in a random order, each at most once."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT id FROM orders WHERE status <> 'draft' ORDER BY md5(id::text)")
        ids = [id for (id,) in rows.fetchall()]
    total = min(round(rate * seconds), len(ids))
    began = time.monotonic() + 0.2

    def write(first: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for number in range(first, total, _THREADS):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                value = f"write {number} at {began}"
                connection.execute("UPDATE orders SET note = %s WHERE id = %s", (value, ids[number]))
                if number % every == 0:
                    _print([ids[number], value, time.monotonic()])

    threads = [threading.Thread(target=write, args=(first,)) for first in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _print({"writes": total, "seconds": time.monotonic() - began})


def _print(record: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
