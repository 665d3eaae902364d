"""An ordinary application that writes at a steady rate: single-row updates, each a transaction of its own.

It tells of some of them on its standard output, a line each as soon as it has its commit (id, new value,
monotonic seconds), and in the end how many there were. It knows nothing of the syncer.
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
@click.option("--rate", required=True, type=float, help="Transactions a second, in all.")
@click.option("--seconds", required=True, type=float)
@click.option("--every", required=True, type=int, help="Tell of one of so many.")
def main(dsn: str, rate: float, seconds: float, every: int) -> None:
    """Updates orders in a random order, each at most once."""
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
                    _tell([ids[number], value, time.monotonic()])

    threads = [threading.Thread(target=write, args=(first,)) for first in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _tell({"writes": total, "seconds": time.monotonic() - began})


def _tell(what: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
