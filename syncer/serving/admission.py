"""Refuses requests before any endpoint sees them: foreign web pages, too many requests, too large bodies.

A page of a foreign web site can send requests to 127.0.0.1 from its visitor's browser. Two checks prevent this:

Host     With DNS rebinding, the name of the foreign site resolves to 127.0.0.1, so the browser lets the page read the
         responses. Such a request has the foreign name in its header Host. An IP address there is harmless.
Origin   The browser names the page's site in requests that change something, and in WebSocket handshakes. It has to be
         the site that the request goes to.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncer.config.schema import HttpSettings
from syncer.serving.limits import TokenBuckets, client_key
from syncer.serving.problem import Problem
from syncer.serving.tokens import is_loopback

RESERVED_CONNECTIONS = 16
"""Connections that only probes may use. Otherwise many clients could make a liveness probe fail."""


class Admission:
    """ASGI middleware. Raises Problem for a request that is refused."""

    def __init__(self, app: ASGIApp, settings: HttpSettings, probes: Collection[str]) -> None:
        """probes: the paths without limits."""
        self._app, self._probes = app, probes
        self._names = {name.lower() for name in settings.allowed_hosts}
        self._checks_host = is_loopback(settings.host) or bool(self._names)
        self._buckets = TokenBuckets(settings.requests_per_second)
        self._max_body = settings.max_body
        self._max_requests = max(1, settings.max_connections - RESERVED_CONNECTIONS)
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers)
        self._check_origin(headers)
        if scope["type"] == "http":
            self._check_body(headers)
            receive = self._limited(receive)
        if scope["path"] in self._probes:
            await self._app(scope, receive, send)
            return
        self._check_rate(scope)
        if self._requests >= self._max_requests:
            hint = "retry later, or raise http.max_connections"
            error = "too many requests are in progress"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, error, hint, headers={"Retry-After": "1"})
        self._requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host")
        if self._checks_host and host is not None and not self._is_own(host):
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the header Host names another server",
                "use the address of http.host, or add the name to http.allowed_hosts",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None:
            return
        site = _site(origin)
        if site != headers.get("host", "").lower() and _name(site) not in self._names:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "a page of another web site sent this request",
                "if the page belongs to you, add its host name to http.allowed_hosts",
            )

    def _check_body(self, headers: Headers) -> None:
        if int(headers.get("content-length", "0")) > self._max_body:  # h11 accepts digits only
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """Returns a function that limits the size of a body without the header Content-Length."""
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise self._too_large()
            return message

        return receive_limited

    def _too_large(self) -> Problem:
        error = f"the body is larger than {self._max_body} bytes"
        return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error, "send less, or raise http.max_body")

    def _check_rate(self, scope: Scope) -> None:
        client = scope.get("client")
        wait = self._buckets.take(client_key(client[0]) if client else "", time.monotonic())
        if wait:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "this client sends too many requests",
                "send fewer requests, or raise http.requests_per_second",
                headers={"Retry-After": str(math.ceil(wait))},
            )

    def _is_own(self, host: str) -> bool:
        name = _name(host.lower())
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == "localhost" or name in self._names
        return True


def _site(origin: str) -> str:
    """Returns the host and port of the header Origin in lower case; empty if there is none, such as for `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Returns a host without its port and without the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
