"""`/livez` and `/readyz`: the probes of a supervisor such as Kubernetes, as plain text.

Everybody may call them. Only clients that may read get the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from syncer.serving.endpoint import Endpoint
from syncer.serving.services import Services
from syncer.serving.tools import Tools

_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def endpoints(services: Services, tools: Tools) -> Sequence[Endpoint]:
    def probe(path: str, check: Callable[[], tuple[bool, str]], good: str, bad: str) -> Endpoint:
        async def answer(request: Request) -> Response:
            is_good, reason = check()
            if not tools.tokens.allows("read", request.headers):
                reason = ""
            status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
            return PlainTextResponse(f"{reason or ('ok' if is_good else 'failed')}\n", status)

        operation = {
            "operationId": path.strip("/"),
            "summary": good,
            "responses": {
                "200": {"description": good, "content": _TEXT},
                "503": {"description": f"{bad}; the text has the reasons, for clients that may read", "content": _TEXT},
            },
        }
        return Endpoint(path, answer, operation, access="open", probe=True)

    health = services.health
    return [
        probe("/livez", health.live, "The process makes progress", "The process has to be restarted"),
        probe("/readyz", health.ready, "All read models are kept in sync", "A read model is not kept in sync"),
    ]
