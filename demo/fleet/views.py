"""The application's queries: the hours of a device in Elasticsearch, totals and a ranking in Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson
import redis

BY_ERRORS = "devices:by-errors"
HOURS_PAGE, DEVICES_PAGE = 12, 10
_SECONDS = 5.0
"""The timeout of a request."""
_FIELDS = ["hour", "readings", "errors", "lowest", "highest", "average"]

Position = Sequence[Any]
"""The position of a hit in its search. The next page begins after it."""


class Fleet:
    """Reads the documents of the fleet. asked: is called with each query, as a user types it."""

    def __init__(self, elasticsearch: str, redis_url: str, asked: Callable[[str], None] = lambda _: None) -> None:
        self._search = httpx.Client(base_url=elasticsearch, timeout=_SECONDS)
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=_SECONDS, decode_responses=True)
        self._asked = asked

    def close(self) -> None:
        self._search.close()
        self._redis.close()

    def hours(
        self, device: int, since: datetime, size: int = HOURS_PAGE, after: Position = ()
    ) -> tuple[list[dict[str, Any]], Position]:
        """Returns a page of the hours of a device since a time, the latest first, and the position of the last one."""
        query: dict[str, Any] = {
            "size": size,
            "query": {
                "bool": {"filter": [{"term": {"device_id": device}}, {"range": {"hour": {"gte": since.isoformat()}}}]}
            },
            "sort": [{"hour": "desc"}],
            "_source": _FIELDS,
        }
        hits = self._post("device_hours/_search", query | ({"search_after": list(after)} if after else {}))["hits"]
        found = hits["hits"]
        return [hit["_source"] for hit in found], found[-1]["sort"] if found else ()

    def last_day(self, device: int, now: datetime) -> Iterator[list[dict[str, Any]]]:
        """Yields the pages of the last 24 hours of a device."""
        page, position = self.hours(device, day_before(now))
        while page:
            yield page
            page, position = self.hours(device, day_before(now), after=position)

    def sums(self, since: datetime) -> dict[str, int]:
        """Returns the number of readings and errors of all devices since a time."""
        query = {
            "size": 0,
            "query": {"range": {"hour": {"gte": since.isoformat()}}},
            "aggs": {name: {"sum": {"field": name}} for name in ("readings", "errors")},
        }
        found = self._post("device_hours/_search", query)["aggregations"]
        return {name: round(found[name]["value"]) for name in ("readings", "errors")}

    def most_errors(self, first: int = 0, size: int = DEVICES_PAGE) -> list[dict[str, Any]]:
        """Returns a page of the totals of devices, those with the most errors first."""
        self._asked(f"redis-cli ZRANGE {BY_ERRORS} {first} {first + size - 1} REV")
        ids: Any = self._redis.zrange(BY_ERRORS, first, first + size - 1, desc=True)
        texts: Any = self._redis.mget([f"device:{id}" for id in ids]) if ids else []
        return [orjson.loads(text) for text in texts if text]  # a device may disappear between the two reads

    def totals(self, device: int) -> dict[str, Any] | None:
        """Returns the totals of a device over all its readings."""
        self._asked(f"redis-cli GET device:{device}")
        text: Any = self._redis.get(f"device:{device}")
        return orjson.loads(text) if text else None

    def count(self) -> int:
        """Returns the number of devices."""
        count: Any = self._redis.zcard(BY_ERRORS)
        return int(count)

    def _post(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        url = self._search.base_url.join(path)
        self._asked(f"curl -H 'content-type: application/json' {url} -d '{orjson.dumps(query).decode()}'")
        response = self._search.post(path, json=query)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def day_before(now: datetime) -> datetime:
    """Returns the beginning of the last 24 hours. The current hour is one of them."""
    return now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
