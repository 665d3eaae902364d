"""Reads all documents of Elasticsearch, PostgreSQL and Redis, and finds those that differ from the expected ones."""

from __future__ import annotations

import decimal
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import redis
import urllib3

from devstack import Stack
from tests.convergence.oracle import DIGITS, Documents

_PAGE = 1000


@dataclass(frozen=True)
class Difference:
    """Describes a wrong document. `expected` or `found` is None if there is no such document."""

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
    """Returns the differences between expected and found documents, by id."""
    with decimal.localcontext(prec=DIGITS):
        wanted, actual = _exact(expected), _exact(found)
    ids = [id for id in {**wanted, **actual} if wanted.get(id) != actual.get(id)]
    return [Difference(where, id, wanted.get(id), actual.get(id)) for id in ids]


def _exact(value: Any) -> Any:
    """Replaces numbers by texts that are equal exactly if the numbers are. So 1, "1" and true stay different."""
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
    """Returns every document of an index or alias. Reads them from one point in time."""
    base = stack.elasticsearch
    _request("POST", f"{base}/{index}/_refresh")
    pit = _request("POST", f"{base}/{index}/_pit?keep_alive=1m")["id"]
    found: Documents = {}
    query: dict[str, Any] = {"size": _PAGE, "sort": ["_shard_doc"]}
    try:
        while True:
            page = _request("POST", f"{base}/_search", query | {"pit": {"id": pit, "keep_alive": "1m"}})
            assert not page["timed_out"] and not page["_shards"]["failed"], page["_shards"]
            hits = page["hits"]["hits"]
            found |= {hit["_id"]: hit["_source"] for hit in hits}
            if len(hits) < _PAGE:
                return found
            pit, query["search_after"] = page["pit_id"], hits[-1]["sort"]
    finally:
        _request("DELETE", f"{base}/_pit", {"id": pit})


def in_redis(stack: Stack, prefix: str) -> Documents:
    """Returns the value of every key with this prefix, by the rest of the key. Reads JSON documents and hashes."""
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
        if body:  # another process may have deleted the key
            yield key.removeprefix(prefix), body if isinstance(body, dict) else _parse(body)


def in_postgres(dsn: str, view: str) -> Documents:
    """Returns every row of a view as JSON, as applications see it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(f"SELECT _id, (to_jsonb(v) - '_id' - '_version')::text FROM {view} v".encode())
        return {id: _parse(text) for id, text in rows}


def _request(method: str, url: str, body: Any = None) -> Any:
    headers = {"content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    answer = urllib3.request(method, url, body=data, headers=headers, timeout=30)
    assert answer.status == 200, f"{method} {url}: {answer.status} {answer.data!r}"
    return _parse(answer.data)


def _parse(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)
