"""`POST /models/MODEL/refresh`: renders documents from PostgreSQL and writes them to the sinks now."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from syncer.serving.endpoint import Endpoint
from syncer.serving.limits import client_key
from syncer.serving.problem import Problem, json_response
from syncer.serving.services import Services
from syncer.serving.tools import BlockingCalls, Tools

_THREADS = 64
"""Requests of all read models that are processed at the same time. `refresh.max_requests` limits each read model."""
_VALUE = {"type": ["string", "integer", "boolean"]}
_BODY = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "keys": {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [_VALUE, {"type": "array", "minItems": 1, "items": _VALUE}]},
            "description": "Ids of documents, or the values of their key columns",
        },
        "table": {"type": "string", "description": "A table of the read model, with or without its schema"},
        "rows": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object"},
            "description": "The columns that link a changed row to its parent, before and after the change: two rows",
        },
        "token": {
            "type": "string",
            "description": "The commit that the documents have to show: x:<transaction id>, l:<WAL position>, or now;"
            " the first two may end in @<system identifier>/<timeline>",
            "default": "now",
        },
        "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds"},
    },
    "oneOf": [{"required": ["keys"]}, {"required": ["table", "rows"]}],
}
_REFRESHED = {
    "type": "object",
    "required": ["model", "refreshed", "version", "snapshot_at"],
    "properties": {
        "model": {"type": "string"},
        "refreshed": {"type": "integer", "description": "The number of documents"},
        "version": {"type": "integer", "description": "Every document has this version or a newer one, in every sink"},
        "snapshot_at": {
            "type": "string",
            "format": "date-time",
            "description": "The documents show PostgreSQL as it was then, or later",
        },
    },
}
_ERRORS = {
    "404": "The read model does not exist",
    "409": "The token's transaction was rolled back, the token belongs to another server or timeline, or a row leads to"
    " no document",
    "413": "The body is too large, or the request is about too many documents",
    "422": "A sink or PostgreSQL refused a document, which now has a dead letter",
    "504": "The token's transaction was not committed in time",
}
_OPERATION = {
    "operationId": "refresh",
    "summary": "Refresh documents now",
    "description": "Answers when every sink has the documents as PostgreSQL shows them now, or newer ones.",
    "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
    "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
    "responses": {
        "200": {
            "description": "Every sink has the documents",
            "content": {"application/json": {"schema": _REFRESHED}},
        },
        **{
            status: {
                "description": text,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }
            for status, text in _ERRORS.items()
        },
    },
}


def endpoints(services: Services, tools: Tools) -> Sequence[Endpoint]:
    refreshes = services.refreshes
    if refreshes is None:
        return []
    threads = BlockingCalls(_THREADS)  # of its own: these calls wait for servers, and must not delay other endpoints

    async def refresh(request: Request) -> Response:
        body = _parse(await request.body())
        client = client_key(request.client.host) if request.client else ""
        call = threads.run(refreshes.refresh, request.path_params["model"], body, client)
        return json_response(await tools.shutdown.wait_for(call, request=request))

    return [Endpoint("/models/{model}/refresh", refresh, _OPERATION, method="POST", access="write")]


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = 'send for example {"keys": ["17"]}'
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}", hint) from error
