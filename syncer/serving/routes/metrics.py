"""`/metrics`: the metrics of the process for Prometheus."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from http import HTTPStatus
from typing import cast

from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from syncer.serving.endpoint import Endpoint
from syncer.serving.problem import Problem
from syncer.serving.services import Services
from syncer.serving.tools import Tools

_OPERATION = {
    "operationId": "metrics",
    "summary": "Metrics in the text format of Prometheus",
    "parameters": [
        {
            "name": "name[]",
            "in": "query",
            "description": "The names of metrics. Without them, the response has all metrics.",
            "schema": {"type": "array", "items": {"type": "string"}},
        }
    ],
    "responses": {
        "200": {
            "description": "The metrics of this process",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
        },
        "406": {
            "description": "The header Accept cannot be read",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    },
}
_LEVEL = 5  # of compression; higher levels take more time for little effect


def endpoints(services: Services, tools: Tools) -> Sequence[Endpoint]:
    async def metrics(request: Request) -> Response:
        headers, names = request.headers, request.query_params.getlist("name[]")
        try:
            encode, content_type = choose_encoder(headers.get("accept", ""))
        except (TypeError, ValueError) as error:  # the version is not made of numbers
            hint = "send the header that Prometheus sends, or none"
            raise Problem(HTTPStatus.NOT_ACCEPTABLE, "the header Accept cannot be read", hint) from error
        registry = cast(Collector, services.metrics.restricted_registry(names)) if names else services.metrics
        if not gzip_accepted(headers.get("accept-encoding", "")):
            return Response(await tools.blocking.run(encode, registry), media_type=content_type)
        body = await tools.blocking.run(lambda: gzip.compress(encode(registry), _LEVEL))
        return Response(body, headers={"Content-Encoding": "gzip"}, media_type=content_type)

    return [Endpoint("/metrics", metrics, _OPERATION)]
