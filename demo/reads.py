"""Reads documents as the pages of the shop do: a search and a summary. Measures the delay of changes."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
import redis
import urllib3

from demo import screen
from demo.screen import PROGRAMS, Failed
from devstack import Stack

CHANGES = 20
_TIMEOUT = 300.0
_QUERY = {
    "size": 2,
    "query": {
        "bool": {
            "must": {"match_phrase": {"items.product.name": "oak lamp"}},
            "filter": [{"term": {"status": "paid"}}, {"range": {"total": {"gte": 300}}}],
        }
    },
    "sort": [{"placed_at": "desc"}],
    "_source": ["order_id", "status", "placed_at", "customer.name", "total", "items.product.name"],
    "aggs": {"by_country": {"terms": {"field": "customer.country", "size": 3}}},
}


@dataclass
class Reader:
    """Reads one customer in both stores: the summary in Redis, and one order in Elasticsearch."""

    stack: Stack
    dsn: str
    customer: int = 0
    order: int = 0
    _delays: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT customer_id, max(id) FROM orders WHERE status <> 'draft' GROUP BY 1 ORDER BY 1 LIMIT 1"
            ).fetchone()
        if row is None:
            raise Failed("The shop has no order that is more than a draft.")
        self.customer, self.order = row

    @property
    def key(self) -> str:
        """The Redis key of the summary."""
        return f"customer:{self.customer}:summary"

    def rename(self, name: str) -> dict[str, float]:
        """Change the customer's name as the application would, and read until both stores show it.

        Returns the seconds from the commit, as the application knows of it, by store.
        """
        address = self.stack.server("elasticsearch").address
        path = f"/orders/_doc/{self.order}?filter_path=_source.customer.name"
        seen: dict[str, float] = {}
        with (
            psycopg.connect(self.dsn, autocommit=True) as connection,
            redis.from_url(self.stack.redis) as summaries,
            urllib3.connection_from_url(f"http://{address}", timeout=30, retries=False) as orders,
        ):
            summaries.ping()
            connection.execute("UPDATE customers SET name = %s WHERE id = %s", (name, self.customer))
            committed = time.monotonic()
            while len(seen) < 2:
                if "Redis" not in seen and orjson.loads(summaries.get(self.key) or b"{}").get("name") == name:
                    seen["Redis"] = time.monotonic() - committed
                if "Elasticsearch" not in seen:
                    found = orjson.loads(orders.request("GET", path).data).get("_source", {})
                    if found.get("customer", {}).get("name") == name:
                        seen["Elasticsearch"] = time.monotonic() - committed
                if time.monotonic() - committed > _TIMEOUT:
                    raise Failed(f"A change is not readable in both stores after {_TIMEOUT:.0f} s.")
                time.sleep(0.001)
        return seen


def catch_up(reader: Reader) -> None:
    """Waits until the stores have all changes so far.

    Commits one more change. It comes last from the WAL. Once it is readable, all other changes are in Kafka, where
    `syncer status` counts them.
    """
    screen.note("waiting until all these changes are readable")
    began = time.monotonic()
    reader.rename("Grace Hopper")
    while not _idle():
        if time.monotonic() - began > _TIMEOUT:
            raise Failed(f"The read models have not caught up after {_TIMEOUT:.0f} s. To see why: syncer status")
        time.sleep(0.1)
    screen.note(f"all changes were readable {time.monotonic() - began:.1f} s after the last one")


def _idle() -> bool:
    done = subprocess.run([PROGRAMS / "syncer", "status", "--json"], capture_output=True, check=False)
    if done.returncode > 1:
        raise Failed(f"syncer status ended with exit status {done.returncode}: {done.stderr.decode()}")
    models = orjson.loads(done.stdout)["models"]
    return all(one["lag_records"] == one["work_records"] == 0 for one in models)


def freshness(reader: Reader) -> None:
    """Measures the delay from commit to readable: of one change, then of some more for the median."""
    statement = f"UPDATE customers SET name = 'Ada Lovelace' WHERE id = {reader.customer}"
    screen.command(f'psql -c "{statement}"')
    first = reader.rename("Ada Lovelace")
    places = {"Redis": reader.key, "Elasticsearch": f"orders/_doc/{reader.order}"}
    for store, seconds in first.items():
        screen.note(f"committed → readable in {store} after {seconds * 1000:.0f} ms ({places[store]})")
    delays = [reader.rename(f"Ada Lovelace {number}") for number in range(1, CHANGES + 1)]
    for store in first:
        screen.note(f"{CHANGES} more such changes, {store}: {_summary([one[store] for one in delays])}")


def _summary(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms in the median, {max(seconds) * 1000:.0f} ms at most"


def search(stack: Stack) -> None:
    """Searches paid orders of an oak lamp with a total of at least 300, the latest first, and counts countries."""
    url = f"{stack.elasticsearch}/orders/_search"
    screen.command(f"curl -H 'content-type: application/json' {url} -d '{screen.json_text(_QUERY)}'")
    headers = {"content-type": "application/json"}
    answer = orjson.loads(urllib3.request("POST", url, body=orjson.dumps(_QUERY), headers=headers, timeout=30).data)
    hits = answer["hits"]
    screen.show(
        {
            "took": answer["took"],
            "total": hits["total"]["value"],
            "hits": [hit["_source"] for hit in hits["hits"]],
            "by_country": {b["key"]: b["doc_count"] for b in answer["aggregations"]["by_country"]["buckets"]},
        }
    )
    if not hits["hits"]:
        raise Failed("The search found nothing.")


def summary(reader: Reader) -> None:
    """Shows the summary of a customer, with a shortened list of orders."""
    screen.command(f"redis-cli -u {reader.stack.redis} GET {reader.key}")
    with redis.from_url(reader.stack.redis) as client:
        value = client.get(reader.key)
    if not value:
        raise Failed(f"There is no {reader.key} in Redis.")
    document: dict[str, Any] = orjson.loads(value)
    orders = document["recent_orders"]
    if len(orders) > 2:
        document["recent_orders"] = [*orders[:2], f"… {len(orders) - 2} more"]
    screen.show(document)
