"""The documents that there are: all of Elasticsearch and Redis, and which are not what they should be."""

from __future__ import annotations

import decimal
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import redis
import urllib3

from devstack import Stack
from tests.convergence.oracle import DIGITS, Documents

_PAGE = 1000


@dataclass(frozen=True)
class Difference:
    """A document that is not what it should be; None where there is none."""

    where: str
    id: str
    expected: Any
    found: Any

    @property
    def kind(self) -> str:
        return "missing" if self.found is None else "ghost" if self.expected is None else "differing"

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.kind}: {self.id!r}"]
        expected, found = self.expected or {}, self.found or {}
        for name in {**expected, **found}:
            if expected.get(name) == found.get(name):
                continue
            lines.append(f"  {name}: expected {_short(expected.get(name))}")
            lines.append(f"  {' ' * len(name)}     found {_short(found.get(name))}")
        return "\n".join(lines)


def differences(where: str, expected: Documents, found: Documents) -> list[Difference]:
    """Ids without an equal document on the other side."""
    with decimal.localcontext(prec=DIGITS):
        wanted, there = _exact(expected), _exact(found)
    ids = [id for id in {**wanted, **there} if wanted.get(id) != there.get(id)]
    return [Difference(where, id, wanted.get(id), there.get(id)) for id in ids]


def _exact(value: Any) -> Any:
    """Numbers as texts, equal exactly if the numbers are; so that 1, 1.0 and true are not confused either."""
    if isinstance(value, dict):
        return {name: _exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return f"number {Decimal(value).normalize():f}"
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:400]}… ({len(text)} characters)"


def in_elasticsearch(stack: Stack, index: str) -> Documents:
    """Every document of an index (or alias), by a point in time."""
    base = stack.elasticsearch
    _ask("POST", f"{base}/{index}/_refresh")
    pit = _ask("POST", f"{base}/{index}/_pit?keep_alive=1m")["id"]
    found: Documents = {}
    query: dict[str, Any] = {"size": _PAGE, "sort": ["_shard_doc"]}
    try:
        while True:
            page = _ask("POST", f"{base}/_search", query | {"pit": {"id": pit, "keep_alive": "1m"}})
            assert not page["timed_out"] and not page["_shards"]["failed"], page["_shards"]
            hits = page["hits"]["hits"]
            found |= {hit["_id"]: hit["_source"] for hit in hits}
            if len(hits) < _PAGE:
                return found
            pit, query["search_after"] = page["pit_id"], hits[-1]["sort"]
    finally:
        _ask("DELETE", f"{base}/_pit", {"id": pit})


def in_redis(stack: Stack, prefix: str) -> Documents:
    """Every key that begins so, by what follows: JSON documents and hashes."""
    with redis.Redis.from_url(stack.redis, decode_responses=True) as client:
        return dict(_read(client, prefix, sorted(set(client.scan_iter(f"{prefix}*", count=1000)))))


def _read(client: redis.Redis, prefix: str, keys: list[str]) -> Iterator[tuple[str, Any]]:
    kinds = client.pipeline(transaction=False)
    bodies = client.pipeline(transaction=False)
    for key in keys:
        kinds.type(key)
    for key, kind in zip(keys, kinds.execute(), strict=True):
        bodies.hgetall(key) if kind == "hash" else bodies.get(key)
    for key, body in zip(keys, bodies.execute(), strict=True):
        if body:  # it may have gone meanwhile
            yield key.removeprefix(prefix), body if isinstance(body, dict) else _parse(body)


def _ask(method: str, url: str, body: Any = None) -> Any:
    headers = {"content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    answer = urllib3.request(method, url, body=data, headers=headers, timeout=30)
    assert answer.status == 200, f"{method} {url}: {answer.status} {answer.data!r}"
    return _parse(answer.data)


def _parse(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)
