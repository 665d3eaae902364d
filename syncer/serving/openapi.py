"""Describes all endpoints in the form of OpenAPI 3.1, and serves the description at `/openapi.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from syncer import __version__
from syncer.serving.endpoint import Endpoint
from syncer.serving.problem import json_response

_OPERATION = {
    "operationId": "openapi",
    "summary": "This description",
    "responses": {
        "200": {
            "description": "The description of all endpoints, in the form of OpenAPI 3.1",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
}
_ERROR = {
    "type": "object",
    "required": ["error", "hint"],
    "properties": {
        "error": {"type": "string", "description": "What went wrong"},
        "hint": {"type": "string", "description": "What to change or run; may be empty"},
    },
}


def _response(description: str, headers: Mapping[str, str] | None = None, *, plain: bool = False) -> dict[str, Any]:
    schema = {"type": "string"} if plain else {"$ref": "#/components/schemas/Error"}
    found: dict[str, Any] = {
        "description": description,
        "content": {"text/plain" if plain else "application/json": {"schema": schema}},
    }
    if headers:
        found["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    return found


def _common(endpoint: Endpoint) -> dict[str, Any]:
    """Returns the error responses that an endpoint has because of its access level and the limits."""
    plain = endpoint.probe
    found = {
        "400": _response("The request is not valid", plain=plain),
        "403": _response("The page of another web site sent the request, or the token may only read", plain=plain),
        "413": _response("The body is larger than `http.max_body`", plain=plain),
        "421": _response("The header Host names another server", plain=plain),
        "500": _response("An internal error; the log has the details", plain=plain),
    }
    if endpoint.access != "open":
        challenge = {"WWW-Authenticate": "The scheme, and whether a token was wrong"}
        found["401"] = _response("A token is missing or wrong", challenge)
    if not endpoint.probe:
        retry = {"Retry-After": "Seconds after which to send the request again"}
        found["429"] = _response("The client sends too many requests", retry)
        found["503"] = _response("Too many requests are in progress, or the daemon is stopping", retry)
    return found


def describe(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Returns the description of these endpoints as JSON values."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = dict(endpoint.operation)
        operation["responses"] = dict(sorted((_common(endpoint) | operation["responses"]).items()))
        operation["security"] = [{}] if endpoint.access == "open" else [{f"{endpoint.access}Token": []}, {}]
        for method in endpoint.methods:
            one = operation
            if method == "HEAD":
                one = operation | {"operationId": f"{operation['operationId']}_head"}
            paths.setdefault(endpoint.path, {})[method.lower()] = one
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "readmodel-syncer",
            "version": __version__,
            "description": "The state of the daemon `syncer run`.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "readToken": {"type": "http", "scheme": "bearer", "description": "http.read_token or http.write_token"},
                "writeToken": {"type": "http", "scheme": "bearer", "description": "http.write_token"},
            },
        },
    }


def openapi_endpoint(others: Sequence[Endpoint]) -> Endpoint:
    """Returns the endpoint `/openapi.json`. others: all other endpoints."""

    async def openapi(_: Request) -> Response:
        return json_response(document)

    endpoint = Endpoint("/openapi.json", openapi, _OPERATION)
    document = describe([*others, endpoint])
    return endpoint
