"""`/wait`: waits until the documents of a read model show a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from syncer.serving.endpoint import Endpoint
from syncer.serving.problem import Problem, json_response
from syncer.serving.services import Services, Wait
from syncer.serving.tools import Tools, check_query

_DEFAULT_TIMEOUT, _LONGEST_TIMEOUT = 5.0, 60.0
"""Seconds."""
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_OPERATION: dict[str, Any] = {
    "operationId": "wait",
    "summary": "Waits until the documents of a read model show a commit",
    "parameters": [
        {
            "name": "model",
            "in": "query",
            "required": True,
            "description": "The name of a read model.",
            "schema": {"type": "string"},
        },
        {
            "name": "token",
            "in": "query",
            "description": "The commit: `x:` and pg_current_xact_id() of the writing transaction; `l:` and"
            " pg_current_wal_insert_lsn() after the commit; or `now`.",
            "schema": {"type": "string", "default": "now"},
        },
        {
            "name": "timeout",
            "in": "query",
            "description": "Seconds to wait.",
            "schema": {"type": "number", "minimum": 0, "maximum": _LONGEST_TIMEOUT, "default": _DEFAULT_TIMEOUT},
        },
        {
            "name": "searchable",
            "in": "query",
            "description": "Whether to wait also until searches find the documents. Without it, reads by id do.",
            "schema": {"type": "boolean", "default": False},
        },
    ],
    "responses": {
        "200": {
            "description": "Every sink shows the commit. `watermark` is the snapshot that all documents show.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        "400": {
            "description": "A parameter is malformed, or the commit is of the future.",
            "content": _ERROR,
        },
        "404": {"description": "The read model does not exist.", "content": _ERROR},
        "409": {
            "description": "The transaction was rolled back, or the token is of another PostgreSQL server.",
            "content": _ERROR,
        },
        "503": {
            "description": "The read model is not kept in sync now, a resync is switching readers, or the daemon is"
            " stopping.",
            "headers": {
                "Retry-After": {
                    "description": "Seconds after which to send the request again",
                    "schema": {"type": "string"},
                },
            },
            "content": _ERROR,
        },
        "504": {
            "description": "The time-out passed. `wanted` and `reached` are snapshot clocks; `reason` says why the read"
            " model is behind.",
            "content": _ERROR,
        },
    },
}


def endpoints(services: Services, tools: Tools) -> Sequence[Endpoint]:
    waiting = services.waiting
    if waiting is None:
        return []

    async def wait(request: Request) -> Response:
        check_query(request.query_params, [one["name"] for one in _OPERATION["parameters"]])
        model = request.query_params.get("model", "")
        known = list(services.health.status().get("models", {}))
        if model not in known:
            what = f"read model {model!r} does not exist" if model else "the parameter model is missing"
            status = HTTPStatus.NOT_FOUND if model else HTTPStatus.BAD_REQUEST
            raise Problem(status, what, f"known read models: {', '.join(known)}")
        timeout, searchable = _timeout(request), _searchable(request)
        call = waiting.wait(model, request.query_params.get("token", "now"), searchable=searchable)
        try:
            found = await tools.shutdown.wait_for(asyncio.wrap_future(call.future), timeout, request)
        except TimeoutError:
            raise _timed_out(model, timeout, call) from None
        return json_response({"model": model, **found})

    return [Endpoint("/wait", wait, _OPERATION)]


def _timeout(request: Request) -> float:
    text = request.query_params.get("timeout", str(_DEFAULT_TIMEOUT))
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1.0
    if not 0 <= timeout <= _LONGEST_TIMEOUT:
        hint = f"give seconds from 0 to {_LONGEST_TIMEOUT:g}, such as timeout=2.5"
        raise Problem(HTTPStatus.BAD_REQUEST, f"the timeout {text!r} is invalid", hint)
    return timeout


def _searchable(request: Request) -> bool:
    text = request.query_params.get("searchable", "false")
    if text not in ("true", "false"):
        raise Problem(HTTPStatus.BAD_REQUEST, f"searchable={text!r} is invalid", "give true or false")
    return text == "true"


def _timed_out(model: str, timeout: float, call: Wait) -> Problem:
    progress = call.progress()
    why = progress.get("reason") or "the commit has not reached every sink yet"
    hint = f"wait longer, POST /models/{model}/refresh, or read from PostgreSQL"
    what = f"read model {model} does not show the commit after {timeout:g} s: {why}"
    return Problem(HTTPStatus.GATEWAY_TIMEOUT, what, hint, **{**progress, "reason": why})
