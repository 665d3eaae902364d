"""Turns every exception into a response, and adds the security headers to every response."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from syncer.errors import SyncerError
from syncer.serving.problem import Problem
from syncer.serving.tools import Stopping
from syncer.telemetry import logs

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_HTML_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SERVER_RESTARTING = 1012
_SERVER_ERROR = 1011
"""Codes that close a WebSocket: https://www.iana.org/assignments/websocket"""


class Errors:
    """The outermost ASGI middleware. A request that fails leaves the server running."""

    def __init__(
        self, app: ASGIApp, is_plain: Callable[[str], bool], explain: Callable[[Scope, HTTPException], Problem]
    ) -> None:
        """is_plain: whether the errors of a path are plain text. explain: describes an exception of Starlette."""
        self._app, self._is_plain, self._explain, self._log = app, is_plain, explain, logs.get()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                _add_headers(MutableHeaders(scope=message))
            started = started or message["type"] in ("http.response.start", "websocket.accept")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except (ClientDisconnect, WebSocketDisconnect):
            return
        except Exception as error:
            problem = self._problem(scope, error)
            if not started:
                await problem.response(plain=self._is_plain(scope["path"]))(scope, receive, send_with_headers)
            elif scope["type"] == "websocket":
                code = _SERVER_RESTARTING if isinstance(error, Stopping) else _SERVER_ERROR
                await send({"type": "websocket.close", "code": code})
            # Otherwise the response has begun. uvicorn closes the connection, because the response is not complete.

    def _problem(self, scope: Scope, error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, SyncerError):
            return Problem.of(error)
        if isinstance(error, HTTPException):
            return self._explain(scope, error)
        self._log.exception("HTTP request failed", path=scope["path"], error=error)
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", "see the log")


def _add_headers(headers: MutableHeaders) -> None:
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    is_html = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", _HTML_POLICY if is_html else _POLICY)
