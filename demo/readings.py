"""Sends readings of devices at a steady rate, as the application of the example `devices` and of `make bench` does.

Device 1 sends 40 % of the readings. Some readings arrive hours late. Now and then an earlier reading is corrected or
deleted. After each commit, the program prints one JSON line: the monotonic time, and the newest reading of each group
that the transaction changed, by the id of the group. At the end it prints the number of readings, the seconds and the
CPU seconds that it used.

The readings of a device are numbered. The newest number of a group never falls: only earlier readings are deleted.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import click
import orjson
import psycopg

HOT, HOT_SHARE = 1, 0.4
"""The device that sends the most, and its share of all readings."""
LATE_SHARE, LATEST = 0.05, timedelta(hours=6)
"""The share of readings that arrive late, and by how much at most."""
_ERROR_SHARE = 0.03
_TRANSACTIONS = 100
"""Per second."""
_CORRECT_EVERY, _DELETE_EVERY = 10, 25
"""One of this number of transactions also corrects, or deletes, an earlier reading."""


_LAST = """
SELECT n, coalesce((SELECT max(number) FROM readings WHERE device_id = n), 0) FROM generate_series(1, %s) n"""


class Reading(NamedTuple):
    device: int
    number: int
    taken_at: datetime
    temperature: Decimal | None
    error: str | None

    @property
    def group(self) -> str:
        """The id of the document of this device and hour in `device_hours`."""
        return f"{self.device}|{self.taken_at:%Y-%m-%d %H}:00:00+00"


def readings(chosen: random.Random, count: int, numbers: dict[int, int], now: datetime) -> Iterator[Reading]:
    """Yields new readings. numbers: the last number of each device, which this function updates. now: in UTC."""
    devices = len(numbers)
    for _ in range(count):
        device = HOT if chosen.random() < HOT_SHARE else chosen.randint(HOT + 1, devices)
        taken_at = now - chosen.random() * LATEST if chosen.random() < LATE_SHARE else now
        numbers[device] += 1
        number = numbers[device]
        if chosen.random() < _ERROR_SHARE:
            yield Reading(device, number, taken_at, None, "no answer")
        else:
            hundredths = 1500 + device % 7 * 100 + chosen.randint(0, 800)
            yield Reading(device, number, taken_at, Decimal(hundredths) / 100, None)


def write(connection: psycopg.Connection[Any], batch: list[Reading]) -> None:
    """Adds readings. The transaction stays open."""
    with connection.cursor().copy("COPY readings (device_id, number, taken_at, temperature, error) FROM STDIN") as copy:
        for reading in batch:
            copy.write_row(reading)


def _change(
    connection: psycopg.Connection[Any], chosen: random.Random, transaction: int, before: Mapping[int, int]
) -> None:
    """Corrects or deletes an earlier reading, in some of the transactions. before: the last number of each device."""
    device = chosen.randint(HOT, len(before))
    key = (device, chosen.randint(1, max(before[device] - 1, 1)))
    if before[device] > 1 and transaction % _CORRECT_EVERY == 0:
        connection.execute(
            "UPDATE readings SET temperature = 20, error = NULL WHERE device_id = %s AND number = %s", key
        )
    if before[device] > 1 and transaction % _DELETE_EVERY == 0:
        connection.execute("DELETE FROM readings WHERE device_id = %s AND number = %s", key)


@click.command()
@click.option("--dsn", required=True)
@click.option("--devices", required=True, type=click.IntRange(2), help="Number of devices.")
@click.option("--rate", required=True, type=click.IntRange(_TRANSACTIONS), help="Readings per second.")
@click.option("--seconds", required=True, type=float)
def main(dsn: str, devices: int, rate: int, seconds: float) -> None:
    """Send readings."""
    chosen, size = random.Random(1), rate // _TRANSACTIONS
    with psycopg.connect(dsn) as connection:
        last = connection.execute(_LAST, (devices,)).fetchall()
        connection.commit()
        before: dict[int, int] = dict(last)
        numbers = dict(before)
        began, cpu, transactions = time.monotonic(), time.process_time(), round(seconds * _TRANSACTIONS)
        for number in range(transactions):
            time.sleep(max(0.0, began + number / _TRANSACTIONS - time.monotonic()))
            batch = list(readings(chosen, size, numbers, datetime.now(UTC)))
            write(connection, batch)
            _change(connection, chosen, number, before)
            connection.commit()
            _print([time.monotonic(), {reading.group: reading.number for reading in batch}])
        count, took = transactions * size, time.monotonic() - began
    _print({"readings": count, "seconds": took, "cpu_seconds": time.process_time() - cpu})


def _print(record: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
