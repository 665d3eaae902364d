"""Waits and refreshes through the HTTP interface of a daemon, with the client that applications use."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from syncer.client import Client, FreshnessError, TimedOut, Unavailable
from syncer.config.schema import Config, HttpSettings
from syncer.errors import Retry, SyncerError, Unknown
from syncer.freshness.refresh import Refreshed
from syncer.freshness.refused import Later, Refused

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on, and the one that a client of this machine uses instead."""


def default_url(settings: HttpSettings) -> str:
    """Returns the address of the daemon that runs with these settings on this machine."""
    host = _EVERY_ADDRESS.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def refresh_through(config: Config, url: str, model: str, body: Mapping[str, Any], timeout: float) -> Refreshed:
    """Refreshes documents through the daemon at this address.

    body: `keys` and `token`. timeout: of the request, in seconds.
    Raises Retry if the daemon is unreachable or busy, Refused if it refuses the request.
    """
    fields = {name: value for name, value in body.items() if name != "timeout"}
    try:
        return Refreshed(**_client(config, url).refresh(model, timeout=timeout, **fields))
    except FreshnessError as error:
        raise _translated(error, url) from error


def wait_through(
    config: Config, url: str, model: str, token: str, timeout: float, *, searchable: bool
) -> tuple[bool, Mapping[str, Any]]:
    """Waits through the daemon at this address. Returns whether the commit is shown, and the fields of the response.

    Raises Retry if the daemon is unreachable or busy, Unknown for a malformed token or an unknown read model, and
    Refused for a commit that does not exist.
    """
    try:
        return True, _client(config, url).wait(model, token, timeout, searchable)
    except TimedOut as error:
        return False, error.answer
    except FreshnessError as error:
        if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
            what, hint = _parts(error)
            raise Unknown(what, where=url, hint=hint) from error
        raise _translated(error, url) from error


def _client(config: Config, url: str) -> Client:
    read, write = config.http.read_token, config.http.write_token
    return Client(url, read.get_secret_value() if read else "", write.get_secret_value() if write else "")


def _translated(error: FreshnessError, url: str) -> SyncerError:
    what, hint = _parts(error)
    if not error.status:
        what, why, hint = "the daemon does not answer", str(error.__cause__), "start one: syncer run"
        return Retry(what, where=url, why=why, hint=hint)
    status = HTTPStatus(error.status)
    if isinstance(error, TimedOut | Unavailable):
        return Later(status, what, where=url, hint=hint)
    return Refused(status, what, where=url, hint=hint)


def _parts(error: FreshnessError) -> tuple[str, str]:
    """Returns what failed, and the hint of the daemon."""
    return error.answer.get("error", str(error)), error.answer.get("hint", "")
