"""Measures how long after their commit readings are in the documents, for the example `devices` and `make bench`."""

from __future__ import annotations

import bisect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from demo import place
from demo.screen import Failed

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Sent:
    """What `demo/readings.py` has sent.

    commits: for each transaction, its monotonic time and the newest reading of each group.
    """

    commits: Sequence[tuple[float, Mapping[str, int]]]
    readings: int
    seconds: float
    cpu_seconds: float

    def by_device(self) -> list[tuple[float, dict[str, int]]]:
        """Returns the commits with the newest reading of each device, by its id."""
        found = []
        for at, groups in self.commits:
            newest: dict[str, int] = {}
            for group, number in groups.items():
                device = group.partition("|")[0]
                newest[device] = max(number, newest.get(device, 0))
            found.append((at, newest))
        return found


def send(dsn: str, devices: int, rate: int, seconds: float) -> Sent:
    """Runs `demo/readings.py` to its end. Raises Failed if it fails."""
    options = {"dsn": dsn, "devices": devices, "rate": rate, "seconds": seconds}
    command = [sys.executable, "-m", "demo.readings", *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, cwd=place.ROOT, stdout=subprocess.PIPE, check=False, env=os.environ)
    if done.returncode:
        raise Failed("The program that sends readings failed; its message is above.")
    *commits, last = map(orjson.loads, done.stdout.splitlines())
    return Sent([(at, newest) for at, newest in commits], last["readings"], last["seconds"], last["cpu_seconds"])


class Newest:
    """Polls documents in a thread, and records when each showed which newest reading.

    ids: of the documents. read: returns the documents, in this order. None: there is none. interval: seconds.
    """

    def __init__(
        self, ids: Sequence[str], read: Callable[[Sequence[str]], Sequence[Document | None]], interval: float = 0.01
    ) -> None:
        self._ids, self._read, self._interval = ids, read, interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen: dict[str, list[tuple[float, int]]] = {id: [] for id in ids}
        """For each document, monotonic times and the newest reading that it showed from then on."""

    def __enter__(self) -> Newest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait(self, expected: Mapping[str, int], timeout: float) -> None:
        """Waits until the documents show these readings, or later ones. Raises Failed after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        missing = {id for id in self.seen if id in expected}
        while missing := {id for id in missing if not self.seen[id] or self.seen[id][-1][1] < expected[id]}:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise Failed(f"After {timeout:g} s, the last reading is missing in {sorted(missing)[:5]}.")
            time.sleep(self._interval)

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            found = self._read(self._ids)
            now = time.monotonic()
            for id, document in zip(self._ids, found, strict=True):
                newest = (document["newest"] or 0) if document else 0
                seen = self.seen[id]
                if not seen or newest > seen[-1][1]:
                    seen.append((now, newest))


def totals(client: Any) -> Callable[[Sequence[str]], Sequence[Document | None]]:
    """Returns a function that reads the totals of devices. client: of Redis."""
    return lambda ids: [text and orjson.loads(text) for text in client.mget([f"device:{id}" for id in ids])]


def last(commits: Iterable[tuple[float, Mapping[str, int]]]) -> dict[str, int]:
    """Returns the newest reading of each document after all commits."""
    newest: dict[str, int] = {}
    for _, changed in commits:
        newest |= changed  # the numbers of a device grow
    return newest


def ages(
    commits: Iterable[tuple[float, Mapping[str, int]]], seen: Mapping[str, Sequence[tuple[float, int]]]
) -> list[float]:
    """Returns the seconds from each commit until each document of `seen` that it changed showed it, sorted.

    Raises Failed if a document never showed a commit.
    """
    found = []
    newest = {id: [reading for _, reading in shown] for id, shown in seen.items()}
    for committed, changed in commits:
        for id in changed.keys() & newest.keys():
            position = bisect.bisect_left(newest[id], changed[id])
            if position == len(newest[id]):
                raise Failed(f"The document {id} never showed the reading {changed[id]}.")
            found.append(max(0.0, seen[id][position][0] - committed))
    return sorted(found)
