"""Runs one test with both clients, and a small HTTP server whose responses a test sets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from syncer.client import Client
from syncer.client.aio import AsyncClient

Respond = Callable[[str, str, dict[str, Any]], tuple[int, Any]]
"""Method, path and body of a request → status and JSON of the response. Bytes are sent unchanged."""


class Blocking:
    """Calls an `AsyncClient` as if it were a `Client`, on an event loop of its own."""

    def __init__(self, *arguments: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            values = [_as_coroutine(value) if callable(value) else value for value in arguments]
            options = {key: _as_coroutine(value) if callable(value) else value for key, value in options.items()}
            return self._runner.run(getattr(self._client, name)(*values, **options))

        return call

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


def _as_coroutine(function: Callable[[], Any]) -> Callable[[], Any]:
    async def call() -> Any:
        return function()

    return call


@contextmanager
def client(kind: str, *arguments: Any) -> Iterator[Any]:
    """Yields a client. kind: `sync` or `asyncio`."""
    if kind == "sync":
        yield Client(*arguments)
        return
    blocking = Blocking(*arguments)
    try:
        yield blocking
    finally:
        blocking.close()


class SmallServer:
    """Serves the responses of `respond`, and keeps the requests."""

    def __init__(self) -> None:
        self.respond: Respond = lambda method, path, body: (200, {})
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.authorization: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client has given up
                    self._respond()

            def do_POST(self) -> None:
                self.do_GET()

            def _respond(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = (self.command, self.path, json.loads(text or b"{}"))
                outer.requests.append(request)
                outer.authorization.append(self.headers.get("Authorization"))
                status, answer = outer.respond(*request)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def paths(self) -> list[str]:
        return [f"{method} {path.partition('?')[0]}" for method, path, _ in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
