"""The dashboard's events. The browser gets them as server-sent events, and needs no access to the syncer.

A search gives the newest orders and the counts, once per `INTERVAL`. If the read model has a documents topic, the
daemon also pushes every change (`GET /models/orders/changes`), and the dashboard shows it without waiting for a search.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import httpx

from syncer.client import Unavailable

INTERVAL = 1.0
"""Seconds between two searches. Elasticsearch shows new documents about once a second."""
_RETRY = 5.0
"""Seconds until the daemon is asked again, if it pushes no changes."""
_NEWEST = 12
"""Orders on the dashboard."""


class Searches(Protocol):
    """Searches the orders. `views.Views` is one."""

    async def dashboard(self) -> dict[str, Any]: ...


class Pushed:
    """The latest changes of orders that the daemon has pushed, by id. None stands for a deleted order."""

    def __init__(self) -> None:
        self.orders: dict[int, dict[str, Any] | None] = {}
        self.changed = asyncio.Event()

    async def follow(self, url: str) -> None:
        """Receives changes until it is cancelled. url: of the daemon's endpoint."""
        async with httpx.AsyncClient(timeout=None) as http:
            while True:
                try:
                    async with http.stream("GET", url, params={"documents": "true"}) as response:
                        if response.status_code == httpx.codes.OK:
                            await self._receive(response)
                except httpx.HTTPError:
                    pass  # the daemon is down; the search goes on
                self.orders.clear()  # changes may be missed from now on
                await asyncio.sleep(_RETRY)

    async def _receive(self, response: httpx.Response) -> None:
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            change = json.loads(line.removeprefix("data: "))
            if "key" in change:
                self.orders[int(change["key"])] = change.get("document")
                self.changed.set()
                for old in sorted(self.orders)[: -4 * _NEWEST]:
                    del self.orders[old]

    def on(self, found: dict[str, Any]) -> dict[str, Any]:
        """Returns the result of a search with the pushed orders in it, which are newer."""
        orders = {order["order_id"]: order for order in found["orders"]} | self.orders
        newest = sorted((one for one in orders.values() if one), key=lambda one: -one["order_id"])
        return {**found, "orders": newest[:_NEWEST]}


async def events(views: Searches, url: str) -> AsyncGenerator[str, None]:
    """Yields the dashboard whenever it has changed, and comments that keep the connection open otherwise.

    url: of the daemon's endpoint that pushes the changes of orders.
    """
    pushed, before, searched = Pushed(), "", float("-inf")
    found: dict[str, Any] = {}
    follower = asyncio.create_task(pushed.follow(url))
    try:
        while True:
            pushed.changed.clear()
            if time.monotonic() >= searched + INTERVAL:
                searched = time.monotonic()
                try:
                    found = await views.dashboard()
                except Unavailable:
                    found = {"orders": [], "error": "The search is unavailable at the moment."}
            text = json.dumps(pushed.on(found))
            yield f"data: {text}\n\n" if text != before else ":\n\n"
            before = text
            try:
                async with asyncio.timeout(max(0.0, searched + INTERVAL - time.monotonic())):
                    await pushed.changed.wait()
            except TimeoutError:
                pass
    finally:
        follower.cancel()
