"""A real server on a free port, over a state that tests can change, and with endpoints of every kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import urllib3
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.websockets import WebSocket

from syncer.config.schema import HttpSettings
from syncer.serving.application import ROUTES, Capability
from syncer.serving.endpoint import Endpoint, SocketEndpoint
from syncer.serving.problem import json_response
from syncer.serving.server import Server
from syncer.serving.services import Services
from syncer.serving.tools import Stopping, Tools
from syncer.telemetry.metrics import Metrics
from tests.harness.overview import ExampleOverview

READ, WRITE = "r" * 16, "w" * 16
"""Tokens."""
OPERATION = {"operationId": "example", "responses": {"200": {"description": "An example"}}}


class FakeHealth:
    """The state of a process with the read model `orders`."""

    def __init__(self) -> None:
        self.answer = (True, "")
        self.broken = False
        self.release = threading.Event()
        """Ends the blocking calls of `/block`."""
        self.blocked: set[int] = set()
        """The threads of these calls."""

    def block(self) -> None:
        self.blocked.add(threading.get_ident())
        self.release.wait()

    def live(self) -> tuple[bool, str]:
        if self.broken:
            raise RuntimeError("hunter2")
        return True, ""

    def ready(self) -> tuple[bool, str]:
        return self.answer

    def status(self) -> dict[str, Any]:
        return {"models": {"orders": {"state": "running", "lag_seconds": 0.5}}, "since": 1}


def examples(services: Services, tools: Tools) -> Sequence[Endpoint | SocketEndpoint]:
    """Endpoints as later capabilities have them: a write, a stream, a request that waits, a page, a socket."""
    health = services.health
    assert isinstance(health, FakeHealth)

    async def echo(request: Request) -> Response:
        return json_response({"length": len(await request.body())})

    async def stream(_: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            yield "data: first\n\n"
            try:
                await tools.shutdown.wait_for(asyncio.Event().wait())
            except Stopping:
                yield "data: last\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def flood(_: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            while not tools.shutdown.begun:
                yield bytes(65536)
                await asyncio.sleep(0)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def wait(request: Request) -> Response:
        timeout = float(request.query_params.get("timeout", "60"))
        try:
            await tools.shutdown.wait_for(asyncio.Event().wait(), timeout, request)
        except TimeoutError:
            return json_response("timeout")
        return json_response("never")

    async def block(_: Request) -> Response:
        await tools.blocking.run(health.block)
        return json_response("released")

    async def fail_late(_: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            yield "data: first\n\n"
            raise RuntimeError("hunter2")

        return StreamingResponse(events(), media_type="text/event-stream")

    async def page(_: Request) -> Response:
        return HTMLResponse("<!DOCTYPE html><title>page</title>")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            text = await websocket.receive_text()
            if text == "fail":
                raise RuntimeError("hunter2")
            await websocket.send_text(text)

    return [
        Endpoint("/echo", echo, OPERATION, method="POST", access="write"),
        *(
            Endpoint(f"/{function.__name__}", function, OPERATION)
            for function in (stream, flood, wait, block, fail_late)
        ),
        Endpoint("/page", page, OPERATION, access="open"),
        SocketEndpoint("/socket", socket),
    ]


def services(health: FakeHealth | None = None) -> Services:
    registry = CollectorRegistry()
    Metrics(registry).for_model("orders").lag("changes", 3)
    return Services(health or FakeHealth(), registry, overview=ExampleOverview().read)


@contextmanager
def serving(health: FakeHealth | None = None, **options: Any) -> Iterator[str]:
    """Yields the URL of a server. Takes the arguments of `server`."""
    with server(health, **options) as one:
        yield one.url


def server(
    health: FakeHealth | None = None, *, capabilities: Sequence[Capability] = (examples,), **settings: Any
) -> Server:
    """Returns a server. settings: those of the section `http`. capabilities: endpoints besides the real ones."""
    return Server(HttpSettings(port=0, **settings), services(health), [*ROUTES, *capabilities])


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Sends a request and returns the status and the body."""
    response = send(url, method, headers)
    return response.status, response.data.decode()


def send(
    url: str, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None, **options: Any
) -> urllib3.BaseHTTPResponse:
    """Sends a request on a connection of its own, and returns the response."""
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        return pool.request(method, url, headers=headers, body=body, **options)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def address(url: str) -> tuple[str, int]:
    """Returns the host and the port of a URL."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)
