"""Checks the description of the endpoints, and the server against it with generated requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from tests.unit.serving.serving_harness import READ, WRITE, bearer, get, serving

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@pytest.fixture(scope="module", params=["without tokens", "with tokens"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the URL of a server, and the headers that authorize a client."""
    tokens: dict[str, Any] = {"read_token": READ, "write_token": WRITE} if request.param == "with tokens" else {}
    with serving(requests_per_second=100_000, capabilities=(), **tokens) as url:
        yield url, bearer(WRITE) if tokens else {}


def test_the_description_is_valid_openapi() -> None:
    with serving(capabilities=()) as url:
        document = json.loads(get(f"{url}/openapi.json")[1])
    validate(document, cls=OpenAPIV31SpecValidator)
    assert set(document["paths"]) == {
        "/",
        "/static/{name}",
        "/overview",
        "/metrics",
        "/livez",
        "/readyz",
        "/status",
        "/openapi.json",
    }
    assert "401" in document["paths"]["/status"]["get"]["responses"]
    assert "401" not in document["paths"]["/livez"]["get"]["responses"]


def test_every_response_to_generated_requests_is_described(server: tuple[str, dict[str, str]]) -> None:
    """Sends valid and invalid requests to every endpoint. None of them may fail with 500."""
    url, authorized = server
    session = requests.Session()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=authorized)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert {operation.path for operation in operations} == set(schema.raw_schema["paths"])
    for operation in operations:
        strategies = [operation.as_strategy(mode) for mode in MODES]

        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategies[0] | strategies[1])
        def check(case: Case[Any]) -> None:
            for headers in ({}, authorized) if authorized else ({},):
                response = case.call(headers=headers, session=session)
                case.validate_response(response, headers=headers)
                assert response.status_code != 500

        check()
    session.close()
