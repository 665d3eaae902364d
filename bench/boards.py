"""Measures sorted sets and sets of Redis, and compares them with the same documents as plain JSON keys.

The same orders are written with and without indexes, in turns, in one run: by the sink alone, in one thread and with
prepared documents, and then by `syncer backfill`. The indexes are a sorted set over all orders, one for each customer,
and a set for each status. The second write changes the status of every order, so each moves to another set.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from statistics import median

import orjson
import redis

from bench import backfill
from bench.arena import Arena, Failed
from bench.report import Figure, Report
from syncer.document import Batch
from syncer.registry import loader

STEP = "boards"
_BATCH = 5000
_HEAD = """
root: {table: public.orders}
document:
  order_id: id
  customer_id: customer_id
  status: status
  placed_at: placed_at
  placed: extract(epoch from placed_at)
"""
_INDEXES = """
    indexes:
      - sorted_set: {key: newest, score: placed}
      - sorted_set: {key: "orders-of:{customer_id}", score: placed}
      - set: {key: "status:{status}"}
"""
_MODELS = {
    "plain": f'name: plain{_HEAD}sink:\n  redis:\n    key: "order:{{id}}"\n',
    "boards": f'name: boards{_HEAD}sink:\n  redis:\n    key: "order:{{id}}"{_INDEXES}',
}
_WHAT = {"plain": "JSON keys alone", "boards": "JSON keys, two sorted sets and a set"}


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    rates: dict[tuple[str, str], list[float]] = {}
    memory: dict[str, float] = {}
    with _models(arena), redis.from_url(arena.stack.redis) as client:
        count = arena.scalar("SELECT count(*) FROM orders")
        bodies = _documents(arena)
        for _, model in itertools.product(range(arena.sizes.repetitions), _MODELS):
            arena.reset()
            arena.settle()
            for what, rate in _write(arena, model, bodies).items():
                rates.setdefault((model, what), []).append(rate)
            memory[model] = client.info("memory")["used_memory"] / count
            arena.reset()
            arena.settle()

            def written(board: bool = model == "boards") -> int:
                # Without indexes, each document has a second key for its version.
                return int(client.zcard("newest")) if board else min(int(client.dbsize()) // 2, count)

            rates.setdefault((model, "backfill"), []).append(backfill.run(arena, model, count, written).rate)
            echo(
                f"{model}: "
                + ", ".join(f"{what} {found[-1]:,.0f}/s" for (m, what), found in rates.items() if m == model)
            )
            arena.syncer("verify", model)
        arena.no_dead_letters()
    for (model, what), found in rates.items():
        plain = median(rates["plain", what]) if model != "plain" else 0.0
        against = _WHAT["plain"] if plain else ""
        report.add(Figure(STEP, f"{what}: {_WHAT[model]}", found, "documents/s", against, plain))
    for model, size in memory.items():
        plain = memory["plain"] if model != "plain" else 0.0
        report.add(
            Figure(STEP, f"memory: {_WHAT[model]}", [size], "bytes/document", _WHAT["plain"] if plain else "", plain)
        )


def _documents(arena: Arena) -> dict[str, bytes]:
    rows = arena.sql(
        "SELECT id::text, json_build_object('order_id', id, 'customer_id', customer_id, 'status', status,"
        " 'placed_at', placed_at, 'placed', extract(epoch from placed_at))::text FROM orders ORDER BY id"
    )
    return {id: text.encode() for id, text in rows}


def _write(arena: Arena, model: str, bodies: dict[str, bytes]) -> dict[str, float]:
    """Writes all documents, and then all with another status. Returns documents per second by the name of the write."""
    rates = {}
    changed = {id: orjson.dumps(orjson.loads(body) | {"status": "moved"}) for id, body in bodies.items()}
    [sink] = loader.build_sinks(arena.config, arena.loaded(model), epoch=1, generation=1)
    with closing(sink):
        sink.prepare()
        for version, (what, documents) in enumerate([("sink, new", bodies), ("sink, another status", changed)], 1):
            batches = [
                Batch(version, dict(list(documents.items())[start : start + _BATCH]), [])
                for start in range(0, len(documents), _BATCH)
            ]
            began = time.monotonic()
            done = sum(sink.write(batch).written for batch in batches)
            if done != len(bodies):
                raise Failed(f"{done} documents were written instead of {len(bodies)}")
            rates[what] = done / (time.monotonic() - began)
    return rates


@contextmanager
def _models(arena: Arena) -> Iterator[None]:
    folder = arena.stack.home / "boards"
    folder.mkdir()
    for name, text in _MODELS.items():
        (folder / f"{name}.yaml").write_text(text)
    arena.settings = {"SYNCER_MODELS": str(folder)}
    try:
        yield
    finally:
        arena.settings = {}
