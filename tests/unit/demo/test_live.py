"""The dashboard of the web shop: a search once a second, and changes that a server pushes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from demo.webshop import live
from syncer.client import Unavailable
from syncer.serving.endpoint import Endpoint
from syncer.serving.services import Services
from syncer.serving.tools import Tools
from tests.unit.serving.serving_harness import OPERATION, server


class FixedSearch:
    """Finds what the test sets."""

    def __init__(self, *orders: int) -> None:
        self.orders, self.counts = list(orders), {"placed": 1}
        self.down = False

    async def dashboard(self) -> dict[str, Any]:
        if self.down:
            raise Unavailable("Elasticsearch does not answer")
        return {"orders": [{"order_id": number, "status": "placed"} for number in self.orders], "counts": self.counts}


def change(number: int, status: str | None) -> str:
    document = {"document": {"order_id": number, "status": status}} if status else {}
    return "data: " + json.dumps({"key": str(number), "version": 1, "op": "upsert", **document}) + "\n\n"


def pushes(services: Services, tools: Tools) -> list[Endpoint]:
    async def changes(request: Request) -> StreamingResponse:
        assert request.query_params["documents"] == "true"

        async def events() -> AsyncIterator[str]:
            yield ": keep-alive\n\nevent: live\ndata: {}\n\n"
            yield change(3, "placed") + change(2, "paid") + change(1, None)
            await tools.shutdown.wait_for(asyncio.Event().wait())

        return StreamingResponse(events(), media_type="text/event-stream")

    return [Endpoint("/models/{model}/changes", changes, OPERATION)]


@pytest.fixture
def pushing() -> Iterator[str]:
    with server(capabilities=[pushes]) as one:
        yield f"{one.url}/models/orders/changes"


async def until_orders(search: FixedSearch, url: str, wanted: list[tuple[int, str]]) -> list[str]:
    """Reads events until the dashboard has these orders. Returns all events."""
    seen: list[str] = []
    async with asyncio.timeout(20), aclosing(live.events(search, url)) as events:
        async for event in events:
            seen.append(event)
            if event.startswith("data: "):
                orders = json.loads(event.removeprefix("data: "))["orders"]
                if [(order["order_id"], order["status"]) for order in orders] == wanted:
                    break
    return seen


def test_pushed_changes_are_shown_before_a_search_finds_them(pushing: str) -> None:
    search = FixedSearch(2, 1)
    asyncio.run(until_orders(search, pushing, [(3, "placed"), (2, "paid")]))
    assert search.orders == [2, 1]


def test_without_push_the_dashboard_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.02)
    search = FixedSearch(1)

    async def place_later() -> list[str]:
        reading = asyncio.create_task(until_orders(search, "http://127.0.0.1:1/", [(2, "placed"), (1, "placed")]))
        await asyncio.sleep(0.2)
        search.orders = [2, 1]
        return await reading

    seen = asyncio.run(place_later())
    assert [event for event in seen if event != ":\n\n"] == [seen[0], seen[-1]], "only changes are sent"
    assert ":\n\n" in seen


def test_a_search_that_fails_is_reported_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.02)
    search = FixedSearch(1)
    search.down = True

    async def read() -> tuple[str, str]:
        async with asyncio.timeout(20), aclosing(live.events(search, "http://127.0.0.1:1/")) as events:
            first = await anext(events)
            search.down = False
            return first, await anext(events)

    first, second = asyncio.run(read())
    assert "unavailable" in first and '"order_id": 1' in second
