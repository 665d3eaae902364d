"""Builds the application: the table of endpoints, and the checks before them.

Errors         turns exceptions into responses, adds security headers
Admission      Host, Origin, size, rate, number
router         404 and 405
Authorization  401 and 403, for each endpoint
endpoint
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope

from syncer.config.schema import HttpSettings
from syncer.serving.admission import Admission
from syncer.serving.endpoint import Endpoint, SocketEndpoint
from syncer.serving.errors import Errors
from syncer.serving.openapi import openapi_endpoint
from syncer.serving.problem import Problem
from syncer.serving.routes import changes, metrics, page, probes, refresh, status, wait
from syncer.serving.services import Services
from syncer.serving.tokens import Authorization
from syncer.serving.tools import Tools

Capability = Callable[[Services, Tools], Sequence[Endpoint | SocketEndpoint]]
"""A function that returns the endpoints of one capability; none if the process does not offer it."""

ROUTES: Sequence[Capability] = (
    page.endpoints,
    metrics.endpoints,
    probes.endpoints,
    status.endpoints,
    wait.endpoints,
    refresh.endpoints,
    changes.endpoints,
)


def build(
    settings: HttpSettings, services: Services, tools: Tools, capabilities: Sequence[Capability] = ROUTES
) -> Starlette:
    """Returns the ASGI application."""
    endpoints = [endpoint for capability in capabilities for endpoint in capability(services, tools)]
    http = [endpoint for endpoint in endpoints if isinstance(endpoint, Endpoint)]
    endpoints.append(openapi_endpoint(http))
    probes = {endpoint.path for endpoint in http if endpoint.probe}
    table = Table(endpoints)
    application = Starlette(
        routes=[_route(endpoint, tools) for endpoint in endpoints],
        middleware=[
            Middleware(Errors, is_plain=probes.__contains__, explain=table.explain),
            Middleware(Admission, settings=settings, probes=probes),
        ],
        exception_handlers={HTTPException: _pass_on},
    )
    application.router.redirect_slashes = False
    return application


class Table:
    """The paths and methods of the application, for error messages."""

    def __init__(self, endpoints: Sequence[Endpoint | SocketEndpoint]) -> None:
        self._methods: dict[str, list[str]] = {}
        for endpoint in endpoints:
            methods = endpoint.methods if isinstance(endpoint, Endpoint) else []
            self._methods.setdefault(endpoint.path, []).extend(methods)

    def explain(self, scope: Scope, error: HTTPException) -> Problem:
        """Returns the problem for the client. error: an exception that Starlette raised."""
        if error.status_code == HTTPStatus.NOT_FOUND:
            hint = f"known paths: {' '.join(self._methods)}"
            return Problem(HTTPStatus.NOT_FOUND, "the path does not exist", hint)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = self._methods[scope["route"].path]
            hint = f"use {' or '.join(methods)}"
            headers = {"Allow": ", ".join(methods)}
            return Problem(
                HTTPStatus.METHOD_NOT_ALLOWED, "the path does not support this method", hint, headers=headers
            )
        return Problem(HTTPStatus(error.status_code), error.detail, headers=error.headers)


def _route(endpoint: Endpoint | SocketEndpoint, tools: Tools) -> BaseRoute:
    checks = [Middleware(Authorization, tokens=tools.tokens, level=endpoint.access)]
    if isinstance(endpoint, SocketEndpoint):
        return WebSocketRoute(endpoint.path, endpoint.handler, middleware=checks)
    return Route(endpoint.path, endpoint.handler, methods=endpoint.methods, middleware=checks)


async def _pass_on(_: Request, error: Exception) -> Response:
    """Leaves an exception to `Errors`, which turns all of them into responses."""
    raise error
