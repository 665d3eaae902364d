"""Serves the dashboard. The browser needs no access to the stores or the syncer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from demo.fleet.views import DEVICES_PAGE, Fleet, day_before
from demo.screen import Failed

_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_MOST = 10_000
"""The greatest rank and device that the page can ask for."""


def application(fleet: Fleet, syncer: str) -> Starlette:
    """Returns the dashboard as an ASGI application. syncer: URL of the daemon."""
    daemon = httpx.AsyncClient(base_url=syncer, timeout=httpx.Timeout(5.0, read=None))

    def page(_: Request) -> Response:
        return FileResponse(_STATIC / "index.html", headers=_HEADERS)

    def data(request: Request) -> Response:
        """Returns what the page shows: sums, a page of the ranking, and the last 24 hours of a device."""
        device, first = _number(request, "device", 1), _number(request, "first", 0)
        now = datetime.now(UTC)
        try:
            found = {
                "devices": fleet.count(),
                "day": fleet.sums(day_before(now)),
                "ranking": fleet.most_errors(first, DEVICES_PAGE),
                "device": fleet.totals(device),
                "hours": fleet.hours(device, day_before(now), size=24)[0],
            }
        except (httpx.HTTPError, RedisError) as error:
            return JSONResponse({"error": f"A store does not answer: {error!r}"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    async def changes(_: Request) -> Response:
        """Passes on the hours that the daemon pushes, as server-sent events."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_pushed(daemon), media_type="text/event-stream", headers=headers)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await daemon.aclose()

    routes = [
        Route("/", page),
        Route("/data", data),
        Route("/changes", changes),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _pushed(daemon: httpx.AsyncClient) -> AsyncGenerator[bytes, None]:
    with contextlib.suppress(httpx.HTTPError):  # the daemon is down; the browser connects again
        async with daemon.stream("GET", "/models/device_hours/changes", params={"documents": "true"}) as response:
            async for part in response.aiter_raw():
                yield part


@contextlib.contextmanager
def serving(app: Any, port: int) -> Iterator[str]:
    """Serves an application from a thread, on 127.0.0.1. Yields its URL. Raises Failed if it does not start."""
    settings = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise Failed(f"The dashboard could not listen on the port {port}.")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return min(int(text), _MOST) if text.isdecimal() and len(text) < 10 else default
