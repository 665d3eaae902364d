"""The read side: documents of the read models `orders` (Elasticsearch) and `customer_summaries` (Redis).

A store that is down raises `Unavailable`, so that the client falls back to PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
import redis.asyncio
from redis.exceptions import RedisError

from syncer.client import Unavailable

_TIMEOUT = 2.0
"""Seconds for a request to a store."""


class Views:
    """The documents that pages read."""

    def __init__(self, elasticsearch: str, redis_url: str) -> None:
        self._search = httpx.AsyncClient(base_url=elasticsearch, timeout=_TIMEOUT)
        self._redis = redis.asyncio.Redis.from_url(redis_url, socket_timeout=_TIMEOUT)

    async def close(self) -> None:
        await self._search.aclose()
        await self._redis.aclose()

    async def summary(self, customer: int) -> dict[str, Any] | None:
        """Returns a customer's start page: name, totals, and the last 20 orders."""
        try:
            found = await self._redis.get(f"customer:{customer}:summary")
        except RedisError as error:
            raise Unavailable(f"Redis does not answer: {error}") from error
        return json.loads(found) if found else None

    async def order(self, order: int) -> dict[str, Any] | None:
        """Returns an order. A read by id shows a document as soon as it is written."""
        return with_time((await self._get("GET", f"/orders/_doc/{order}")).get("_source"))

    async def page(self, before: datetime, order: int, size: int) -> list[dict[str, Any]]:
        """Returns the orders that follow this position, newest first. A search shows documents after a refresh."""
        query = {
            "size": size,
            "sort": [{"placed_at": "desc"}, {"order_id": "desc"}],
            "search_after": [int(before.timestamp() * 1000), order],
        }
        hits = (await self._get("POST", "/orders/_search", query))["hits"]["hits"]
        return [found for hit in hits if (found := with_time(hit["_source"]))]

    async def dashboard(self) -> dict[str, Any]:
        """Returns the newest orders, and the number of orders by status."""
        query = {
            "size": 12,
            "sort": [{"order_id": "desc"}],
            "_source": ["order_id", "status", "total", "customer.name", "first_item_name"],
            "aggs": {"statuses": {"terms": {"field": "status", "size": 10}}},
        }
        found = await self._get("POST", "/orders/_search", query)
        buckets = found["aggregations"]["statuses"]["buckets"]
        counts = {bucket["key"]: bucket["doc_count"] for bucket in buckets}
        return {"orders": [hit["_source"] for hit in found["hits"]["hits"]], "counts": dict(sorted(counts.items()))}

    async def _get(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = await self._search.request(method, path, json=body)
            if response.status_code != httpx.codes.NOT_FOUND:
                response.raise_for_status()
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"Elasticsearch does not answer: {error!r}") from error
        return answer


def with_time(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns a document with its time as a value instead of text."""
    return document and document | {"placed_at": datetime.fromisoformat(document["placed_at"])}
