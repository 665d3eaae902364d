"""Declares an endpoint: its path, its code, who may call it, and its description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

AccessLevel = Literal["open", "read", "write"]
"""Who may call an endpoint: everybody, or the clients that may read or write (`tokens.py`)."""


@dataclass(frozen=True)
class Endpoint:
    """One path and method.

    operation: the description, as an Operation Object of OpenAPI 3.1. `openapi.py` adds the common error responses.
    method: GET also answers HEAD.
    probe: whether probes call the endpoint. Its errors are plain text, and no limit applies to it, so that clients
        cannot make a liveness probe fail.
    """

    path: str
    handler: Callable[[Request], Awaitable[Response]]
    operation: Mapping[str, Any]
    method: Literal["GET", "POST", "PUT", "DELETE"] = "GET"
    access: AccessLevel = "read"
    probe: bool = False

    @property
    def methods(self) -> list[str]:
        """All methods that the endpoint answers."""
        return ["GET", "HEAD"] if self.method == "GET" else [self.method]


@dataclass(frozen=True)
class SocketEndpoint:
    """One path for WebSocket connections. OpenAPI cannot describe it."""

    path: str
    handler: Callable[[WebSocket], Awaitable[None]]
    access: AccessLevel = "read"
