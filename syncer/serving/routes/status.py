"""`/status`: the state of every read model, or of one, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from syncer.serving.endpoint import Endpoint
from syncer.serving.problem import Problem, json_response
from syncer.serving.services import Services
from syncer.serving.tools import Tools, check_query

_OPERATION = {
    "operationId": "status",
    "summary": "The state of all read models, or of one",
    "parameters": [
        {
            "name": "model",
            "in": "query",
            "description": "The name of a read model. Without it, the response has all of them.",
            "schema": {"type": "string"},
        }
    ],
    "responses": {
        "200": {
            "description": "The state of this process. With `model`, only the state of that read model.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        "400": {
            "description": "A parameter is unknown or given more than once.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
        "404": {
            "description": "The read model does not exist. `models` lists the existing ones.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    },
}


def endpoints(services: Services, tools: Tools) -> Sequence[Endpoint]:
    async def status(request: Request) -> Response:
        check_query(request.query_params, ["model"])
        state = services.health.status()
        name = request.query_params.get("model")
        if not name:
            return json_response(state)
        models = state.get("models", {})
        if name not in models:
            hint = f"known read models: {', '.join(models)}"
            raise Problem(HTTPStatus.NOT_FOUND, f"read model {name!r} does not exist", hint, models=list(models))
        return json_response(models[name])

    return [Endpoint("/status", status, _OPERATION)]
