"""`POST /models/MODEL/refresh` over a real server. Requests are parsed as in the daemon; nothing is rendered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import pytest
import requests
import schemathesis
import urllib3
from hypothesis import HealthCheck, Phase, given, settings
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from syncer.config.schema import HttpSettings
from syncer.errors import Fatal, Retry, SyncerError
from syncer.freshness.refresh_request import parse
from syncer.freshness.refused import Later, Refused
from syncer.serving.server import Server
from syncer.serving.services import Services
from tests.unit.pipeline.examples import MODEL
from tests.unit.serving.serving_harness import READ, WRITE, FakeHealth, bearer

REFRESHED = {"model": "orders", "refreshed": 1, "version": 9, "snapshot_at": "2026-03-01T12:00:00.512Z"}


class Refreshes:
    """Parses the body. Then raises an error that the test sets."""

    error: SyncerError | None = None

    def refresh(self, model: str, body: Any, client: str) -> Mapping[str, Any]:
        if model != "orders":
            raise Refused(HTTPStatus.NOT_FOUND, f"read model {model!r} does not exist", hint="one of: orders")
        assert client == "127.0.0.1"
        parse(body, MODEL, timeout=10, max_timeout=60, most=1000)
        if self.error:
            raise self.error
        return REFRESHED


@pytest.fixture
def refreshes() -> Refreshes:
    return Refreshes()


@pytest.fixture
def url(refreshes: Refreshes) -> Iterator[str]:
    options = HttpSettings(
        port=0, read_token=SecretStr(READ), write_token=SecretStr(WRITE), requests_per_second=100_000
    )
    with Server(options, Services(FakeHealth(), CollectorRegistry(), refreshes=refreshes)) as server:
        yield server.url


def post(url: str, body: bytes, token: str = WRITE) -> tuple[int, Any, Mapping[str, str]]:
    with urllib3.PoolManager(retries=False) as pool:
        response = pool.request("POST", f"{url}/models/orders/refresh", body=body, headers=bearer(token))
        return response.status, json.loads(response.data), response.headers


def test_a_refresh_needs_the_token_for_writes(url: str) -> None:
    assert post(url, b'{"keys": [1]}')[:2] == (200, REFRESHED)
    assert post(url, b'{"keys": [1]}', READ)[0] == 403
    assert post(url, b'{"keys": [1]}', "another")[0] == 401


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"keys": [NaN]}', b'{"keys": [1]}\xff', b'"x"'])
def test_a_body_that_is_no_request_is_a_400_with_a_hint(url: str, body: bytes) -> None:
    status, answer, _ = post(url, body)
    assert status == 400 and '{"keys": ["17"]}' in answer["hint"]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Refused(HTTPStatus.CONFLICT, "no", where="orders", why="because", hint="do"), 409, False),
        (Later(HTTPStatus.TOO_MANY_REQUESTS, "no", where="orders", why="because", hint="do"), 429, True),
        (Later(HTTPStatus.GATEWAY_TIMEOUT, "no", where="orders", why="because", hint="do"), 504, False),
        (Retry("no", where="orders", why="because", hint="do"), 503, True),
        (Fatal("no", where="orders", why="because", hint="do"), 503, True),
    ],
)
def test_errors_have_their_status_their_reason_and_their_hint(
    url: str, refreshes: Refreshes, error: SyncerError, status: int, retry: bool
) -> None:
    refreshes.error = error
    found, answer, headers = post(url, b'{"keys": [1]}')
    assert (found, answer) == (status, {"error": "orders: no: because", "hint": "do"})
    assert ("Retry-After" in headers) == retry


def test_a_process_without_lanes_does_not_offer_refreshes() -> None:
    with Server(HttpSettings(port=0), Services(FakeHealth(), CollectorRegistry())) as server:
        assert urllib3.request("POST", f"{server.url}/models/orders/refresh", retries=False).status == 404


def test_every_response_to_generated_requests_is_described(url: str) -> None:
    """Sends valid and invalid requests. None of them may fail with 500."""
    session, authorized = requests.Session(), bearer(WRITE)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=authorized)
    [operation] = [
        found.ok() for found in schema.get_all_operations() if isinstance(found, Ok) and "refresh" in found.ok().path
    ]
    strategies = [operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategies[0] | strategies[1])
    def check(case: Case[Any]) -> None:
        case.path_parameters["model"] = "orders"
        response = case.call(headers=authorized, session=session)
        assert response.status_code in (200, 400, 413), response.text
        # A body may have the right form and still be wrong: a token, or the number of a key's columns.
        case.validate_response(response, headers=authorized, excluded_checks=[positive_data_acceptance])

    check()
    session.close()
