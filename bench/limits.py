"""Measures PostgreSQL and Elasticsearch alone, with all cores. No syncer can be faster.

    R   documents per second that PostgreSQL renders. It runs the statements of the read model over the ranges of a
        backfill, on one connection per core. The results are fetched and dropped.
    B   documents per second that Elasticsearch indexes. One thread per core sends prepared `_bulk` bodies.
    U   the same, if the index already has an older version of each document.

If both share the cores, a document takes at least 1/R + 1/B. `streaming` adds the share of Debezium.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
import urllib3

from bench import machine
from bench.arena import Arena, Failed
from bench.report import Figure, Report
from syncer import document
from syncer.document import Batch, Outcome
from syncer.events import Key
from syncer.ports import View
from syncer.postgres.session import connect
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.loader import LoadedModel
from syncer.sinks.elasticsearch import bulk

STEP = "limits"
R = "PostgreSQL renders (R)"
B = "Elasticsearch indexes (B)"
U = "Elasticsearch updates (U)"
COMBINED = "both, sharing the cores: 1 / (1/R + 1/B)"

_WARM_UPS = 8
_VERSION = 1 << 48

Range = tuple[Key | None, Key]


class Body(NamedTuple):
    """The body of one `_bulk` request."""

    data: bytes
    documents: int


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    arena.reset()
    loaded = arena.loaded("orders")
    found = ranges(arena, loaded)
    rendered = rendering(arena, loaded, found, echo)
    bodies = [body for batch in batches(arena, loaded, found) for body in bodies_of(batch)]
    count = sum(body.documents for body in bodies)
    taken = steady(arena, lambda: count / _fill(arena, loaded, bodies, count), echo)
    versions = itertools.count(_VERSION + 1)
    again = steady(arena, lambda: count / _bulk_all(arena, loaded, newer(bodies, next(versions))), echo)
    size = sum(len(body.data) for body in bodies) / count
    report.environment["document"] = f"{size:.0f} bytes with its action line, on average"
    both = [1 / (1 / r + 1 / b) for r, b in zip(rendered, taken, strict=True)]
    report.add(
        Figure(STEP, R, rendered, "documents/s", note=f"{machine.cores()} connections"),
        Figure(STEP, B, taken, "documents/s", note=f"{machine.cores()} connections"),
        Figure(STEP, U, again, "documents/s", note="the same documents with a newer version"),
        Figure(STEP, COMBINED, both, "documents/s"),
    )
    arena.reset()


def ranges(arena: Arena, loaded: LoadedModel) -> list[Range]:
    """Returns the ranges that `syncer backfill` would use."""
    size = arena.config.backfill.range_documents
    with _view(arena, loaded) as view:
        highs = list(view.boundaries(size))
    return list(zip([None, *highs], highs, strict=False))


def rendering(arena: Arena, loaded: LoadedModel, found: Sequence[Range], echo: Callable[[str], None]) -> list[float]:
    """Returns the rate of each repetition (R): documents per second."""
    with _view(arena, loaded) as view:
        count = sum(row.body is not None for low, high in found for row in view.render_range(low, high))
    return steady(arena, lambda: count / _render_all(arena, loaded, found), echo)


def steady(arena: Arena, measure_once: Callable[[], float], echo: Callable[[str], None]) -> list[float]:
    """Returns the rate of each repetition, after the warm-up."""
    warm_up(arena, measure_once, echo)
    rates = []
    for _ in range(arena.sizes.repetitions):
        arena.settle()
        rates.append(measure_once())
        echo(f"{rates[-1]:,.0f} documents/s")
    return rates


def warm_up(arena: Arena, measure_once: Callable[[], float], echo: Callable[[str], None]) -> None:
    """Repeats a measurement until it is less than 10% faster than the best one. Caches fill and Java compiles."""
    best = 0.0
    for _ in range(_WARM_UPS):
        arena.settle()
        rate = measure_once()
        echo(f"warm-up: {rate:,.0f} documents/s")
        if rate < best * 1.1:
            break
        best = rate


def _render_all(arena: Arena, loaded: LoadedModel, found: Sequence[Range]) -> float:
    arguments, compiled = arena.config.postgres.arguments(), loaded.compiled
    connections = [connect(arguments) for _ in range(machine.cores())]
    left = iter(found)

    def work(number: int) -> None:
        while (item := _next(left)) is not None:
            low, high = item
            statement = compiled.render_between if low else compiled.render_upto
            connections[number].execute(statement.encode(), [*(low or ()), *high], prepare=False)

    try:
        return _timed(work)
    finally:
        for connection in connections:
            connection.close()


def batches(arena: Arena, loaded: LoadedModel, found: Sequence[Range]) -> Iterator[Batch]:
    """Yields the batches that the syncer makes of the ranges."""
    with _view(arena, loaded) as view:
        for low, high in found:
            yield document.batch(view.render_range(low, high), _VERSION)


def bodies_of(batch: Batch) -> Iterator[Body]:
    """Yields the `_bulk` requests that the syncer makes of a batch."""
    largest = 8 << 20
    for chunk in bulk.chunks(batch, lambda: largest, largest, Outcome()):
        yield Body(chunk.body(), len(chunk.ids) - chunk.deletes)


def newer(bodies: Sequence[Body], version: int) -> list[Body]:
    """Returns the same requests with another version, which must have the same number of digits."""
    old, new = f'"version":{_VERSION},'.encode(), f'"version":{version},'.encode()
    return [Body(body.data.replace(old, new), body.documents) for body in bodies]


def _fill(arena: Arena, loaded: LoadedModel, bodies: Sequence[Body], count: int) -> float:
    """Indexes all bodies into a new index, as the syncer creates it. Returns the seconds."""
    arena.reset()
    [sink] = loader.build_sinks(arena.config, loaded, epoch=1, generation=1)
    sink.prepare()
    sink.close()
    seconds = _bulk_all(arena, loaded, bodies)
    if (found := arena.documents(_index(loaded))) != count:
        raise Failed(f"{_index(loaded)} has {found} documents instead of {count}")
    return seconds


def _index(loaded: LoadedModel) -> str:
    return f"{loaded.name}-000001"


def _bulk_all(arena: Arena, loaded: LoadedModel, bodies: Sequence[Body]) -> float:
    """Sends all bodies and returns the seconds. Raises Failed unless every document was indexed."""
    path = f"/{quote(_index(loaded))}-write/_bulk?require_alias=true&filter_path={bulk.FILTER}"
    left = iter(bodies)
    host, port = arena.stack.server("elasticsearch").address.split(":")
    clients = [urllib3.HTTPConnectionPool(host, int(port), timeout=60.0) for _ in range(machine.cores())]

    def work(number: int) -> None:
        headers = {"content-type": "application/x-ndjson"}
        while (body := _next(left)) is not None:
            answer = clients[number].request("POST", path, body=body.data, headers=headers, retries=False)
            if answer.status != 200 or orjson.loads(answer.data).get("errors") is not False:
                raise Failed(f"Elasticsearch rejected a _bulk request: {answer.status} {answer.data[:500]!r}")

    return _timed(work)


def _timed(work: Callable[[int], None]) -> float:
    """Runs `work` in one thread per core and returns the seconds. Raises the first error of a thread."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(machine.cores())]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.monotonic() - began


_lock = threading.Lock()


def _next(items: Iterator[Any]) -> Any:
    with _lock:
        return next(items, None)


@contextmanager
def _view(arena: Arena, loaded: LoadedModel) -> Iterator[View]:
    rows = SnapshotReader(arena.config.postgres.arguments(), loaded.compiled, statement_timeout=600)
    try:
        with rows.view() as view:
            yield view
    finally:
        rows.close()
