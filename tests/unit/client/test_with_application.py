"""Both clients against the real HTTP application, with its tokens, time-outs and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from syncer.client import FreshnessError, Session, TimedOut, Unavailable
from syncer.config.schema import HttpSettings
from syncer.errors import SyncerError
from syncer.freshness import tokens
from syncer.freshness.refused import Later, Refused
from syncer.serving.server import Server
from syncer.serving.services import Services
from tests.unit.client.client_harness import client
from tests.unit.serving.serving_harness import READ, WRITE, FakeHealth

REACHED = {"staleness_seconds": 0.25, "watermark": {"clock": 12}, "watermark_reason": ""}


class FakeFreshness:
    """Parses tokens as the daemon does. The rest a test sets."""

    def __init__(self) -> None:
        self.future: Future[dict[str, Any]] = Future()
        """The result of a wait."""
        self.error: SyncerError | None = None
        """The error of a refresh."""
        self.refreshed: list[Any] = []

    def progress(self) -> dict[str, Any]:
        return {"wanted": 12, "reached": 9, "reason": "the connector is stopped"}

    def wait(self, model: str, token: str, *, searchable: bool) -> FakeFreshness:
        tokens.parse(token)
        return self

    def refresh(self, model: str, body: Any, client: str) -> Mapping[str, Any]:
        self.refreshed.append(body)
        if self.error:
            raise self.error
        return {"model": model, "refreshed": 1, "version": 9, "snapshot_at": "2026-03-01T12:00:00.512Z"}


@pytest.fixture
def freshness() -> FakeFreshness:
    return FakeFreshness()


@pytest.fixture
def url(freshness: FakeFreshness) -> Iterator[str]:
    options = HttpSettings(port=0, read_token=SecretStr(READ), write_token=SecretStr(WRITE))
    services = Services(FakeHealth(), CollectorRegistry(), waiting=freshness, refreshes=freshness)
    with Server(options, services) as server:
        yield server.url


@pytest.fixture(params=["sync", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def api(kind: str, url: str) -> Iterator[Any]:
    with client(kind, url, READ, WRITE) as api:
        yield api


def read(api: Any, session: Session, **options: Any) -> Any:
    functions = {"read_model": lambda: "document", "write_store": lambda: "row"}
    return api.read("orders", session, **functions, **{"keys": ["17"], "fresh_within": 0.05} | options)


def test_a_wait_returns_the_watermark_or_why_it_is_behind(api: Any, freshness: FakeFreshness) -> None:
    with pytest.raises(TimedOut) as raised:
        api.wait("orders", "x:7341", timeout=0.05)
    assert {"wanted": 12, "reached": 9, "reason": "the connector is stopped"}.items() <= raised.value.answer.items()
    freshness.future = Future()
    freshness.future.set_result(REACHED)
    assert api.wait("orders", "l:16/B374D848") == {"model": "orders", **REACHED}
    assert api.status("orders")["lag_seconds"] == 0.5


def test_the_fallbacks_follow_the_responses_of_the_application(api: Any, freshness: FakeFreshness) -> None:
    session = Session("x:7341@1/1")
    assert read(api, session).source == "refreshed"
    assert freshness.refreshed[0]["keys"] == ["17"] and freshness.refreshed[0]["token"] == session.token
    freshness.error = Later(HTTPStatus.SERVICE_UNAVAILABLE, "a resync switches the readers")
    freshness.future = Future()
    shown = read(api, session)
    assert shown.source == "write store" and "the connector is stopped" in shown.reason
    assert "a resync switches the readers" in shown.reason
    freshness.future = Future()
    freshness.future.set_exception(Refused(HTTPStatus.CONFLICT, "the transaction was rolled back"))
    shown = read(api, session)
    assert (shown.source, shown.reason, session.token) == ("write store", "the transaction was rolled back", "")


def test_a_malformed_token_in_a_cookie_does_not_fail_a_page(api: Any) -> None:
    session = Session("x:seven")
    shown = read(api, session)
    assert (shown.source, session.token) == ("write store", "") and "cannot be parsed" in shown.reason


def test_unknown_read_models_and_missing_rights_are_raised(kind: str, url: str, api: Any) -> None:
    with pytest.raises(FreshnessError, match="does not exist"):
        api.wait("nothing")
    with client(kind, url) as anonymous, pytest.raises(FreshnessError) as raised:
        anonymous.wait("orders")
    assert raised.value.status == 401
    with client(kind, url, "", READ) as reader, pytest.raises(FreshnessError, match="may only read"):
        reader.refresh("orders", keys=[1])


def test_a_daemon_that_stops_is_unavailable(kind: str, freshness: FakeFreshness) -> None:
    services = Services(FakeHealth(), CollectorRegistry(), waiting=freshness)
    with Server(HttpSettings(port=0), services) as server, client(kind, server.url) as api:
        server.stop()
        with pytest.raises(Unavailable):
            api.wait("orders")
