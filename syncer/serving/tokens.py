"""Decides who may read and write, by the bearer tokens of the configuration (RFC 6750).

==================  =======================================  ==========================================
`http.host`         reads without a token                    writes without a token
==================  =======================================  ==========================================
loopback            unless `read_token` is set               unless any token is set
any other address   only with `anonymous_read: true`         never
==================  =======================================  ==========================================

A write token may also read. Endpoints with the access level `open` need no token.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from syncer.config.schema import HttpSettings
from syncer.errors import Fatal
from syncer.serving.endpoint import AccessLevel
from syncer.serving.problem import Problem


def is_loopback(host: str) -> bool:
    """Returns whether only processes of this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Tokens:
    """The tokens, and the levels that need none."""

    def __init__(self, settings: HttpSettings) -> None:
        """Raises Fatal if other machines could read everything, and no setting says that this is intended."""
        self._read, self._write = _bytes(settings.read_token), _bytes(settings.write_token)
        local = is_loopback(settings.host)
        if not (local or self._read or self._write or settings.anonymous_read):
            raise Fatal(
                "HTTP clients on other machines need a token, and none is set",
                where=f"http.host {settings.host}",
                why="it is not a loopback address",
                hint="set http.read_token_file to a file with a token (openssl rand -hex 32 > FILE). If only trusted "
                "clients can reach this port, set http.anonymous_read: true instead",
            )
        self._open = {"open"}
        if settings.anonymous_read or (local and not self._read):
            self._open.add("read")
        if local and not (self._read or self._write):
            self._open.add("write")

    def allows(self, level: AccessLevel, headers: Mapping[str, str]) -> bool:
        """Returns whether a request with these headers has the access level."""
        return self._problem(level, headers) is None

    def check(self, level: AccessLevel, headers: Mapping[str, str]) -> None:
        """Raises Problem (401 or 403) if a request with these headers does not have the access level."""
        if problem := self._problem(level, headers):
            raise problem

    def _problem(self, level: AccessLevel, headers: Mapping[str, str]) -> Problem | None:
        if level in self._open:
            return None
        if level == "write" and not self._write:
            return Problem(
                HTTPStatus.FORBIDDEN,
                "this daemon accepts no writes over HTTP",
                "set http.write_token_file, and restart",
            )
        given = _given(headers)
        if given is None:
            return _unauthorized("a token is required", 'Bearer realm="syncer"')
        reads, writes = _equal(given, self._read), _equal(given, self._write)
        if writes or (reads and level == "read"):
            return None
        if reads:
            challenge = 'Bearer realm="syncer", error="insufficient_scope"'
            hint = "send the token of http.write_token"
            return Problem(
                HTTPStatus.FORBIDDEN, "the token may only read", hint, headers={"WWW-Authenticate": challenge}
            )
        return _unauthorized("the token is wrong", 'Bearer realm="syncer", error="invalid_token"')


class Authorization:
    """ASGI middleware of one endpoint: raises Problem unless the client has the access level."""

    def __init__(self, app: ASGIApp, tokens: Tokens, level: AccessLevel) -> None:
        self._app, self._tokens, self._level = app, tokens, level

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._tokens.check(self._level, Headers(scope=scope))
        await self._app(scope, receive, send)


def _unauthorized(error: str, challenge: str) -> Problem:
    hint = "send the header `Authorization: Bearer TOKEN` with the token of http.read_token or http.write_token"
    return Problem(HTTPStatus.UNAUTHORIZED, error, hint, headers={"WWW-Authenticate": challenge})


def _given(headers: Mapping[str, str]) -> bytes | None:
    """Returns the token that the client sent; None if it sent none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode() if scheme.lower() == "bearer" else None


def _bytes(token: SecretStr | None) -> bytes:
    return token.get_secret_value().encode() if token else b""


def _equal(given: bytes, token: bytes) -> bool:
    """Compares in constant time, so that the time of a response reveals nothing about the token."""
    return hmac.compare_digest(given, token) and token != b""
