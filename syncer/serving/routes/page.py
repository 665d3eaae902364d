"""`/`: the page, its files, and the values that it polls.

The page is static files without a build step. It requests nothing from other servers. The files are open to everybody,
because they contain no data. The values need the access level `read`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from importlib import resources
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response

from syncer.serving.endpoint import Endpoint
from syncer.serving.problem import Problem
from syncer.serving.services import Services
from syncer.serving.tools import Tools

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_FILE = {
    "200": {"description": "The file", "content": {kind: {"schema": {"type": "string"}} for kind in _TYPES.values()}},
    "304": {"description": "The client has the current version of the file"},
}
_PAGE = {"operationId": "page", "summary": "The page: the state of all read models, for people", "responses": _FILE}
_STATIC = {
    "operationId": "static",
    "summary": "A file of the page",
    "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
    "responses": {**_FILE, "404": {"description": "The page has no such file", "content": _ERROR}},
}
_OVERVIEW = {
    "operationId": "overview",
    "summary": "The values of the page: the state of all read models, and samples of the last 15 minutes",
    "parameters": [
        {
            "name": "since",
            "in": "query",
            "description": "Leaves out samples up to this time (seconds since the Unix epoch).",
            "schema": {"type": "number"},
        }
    ],
    "responses": {
        "200": {
            "description": "The values of this process",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
}


class File(NamedTuple):
    """A file of the page, in memory."""

    body: bytes
    media_type: str
    etag: str

    def response(self, request: Request) -> Response:
        """Returns the file, or 304 if the client has it. Browsers ask each time, so an upgrade takes effect at once."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == self.etag:
            # With its type, because the browser replaces the stored headers, and the policy depends on the type.
            return Response(None, HTTPStatus.NOT_MODIFIED, headers, self.media_type)
        return Response(self.body, headers=headers, media_type=self.media_type)


def read_files() -> dict[str, File]:
    """Returns the files of the package by name. Folders are not part of the name."""
    folder = resources.files("syncer.serving") / "static"
    found = {}
    for path in [*folder.iterdir(), *(folder / "vendor").iterdir()]:
        kind = _TYPES.get(path.name[path.name.rfind(".") :])
        if kind:
            body = path.read_bytes()
            found[path.name] = File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    return found


def endpoints(services: Services, tools: Tools) -> Sequence[Endpoint]:
    if services.overview is None:
        return []
    files, read = read_files(), services.overview

    async def page(request: Request) -> Response:
        return files["index.html"].response(request)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise Problem(HTTPStatus.NOT_FOUND, "the page has no such file", "open the page at /")
        return files[name].response(request)

    async def overview(request: Request) -> Response:
        return Response(_encode(read, request.query_params.get("since", "0")), media_type="application/json")

    return [
        Endpoint("/", page, _PAGE, access="open"),
        Endpoint("/static/{name}", static, _STATIC, access="open"),
        Endpoint("/overview", overview, _OVERVIEW),
    ]


def _encode(read: Callable[[float], Mapping[str, Any]], since: str) -> bytes:
    try:
        after = float(since)
    except ValueError:
        raise Problem(HTTPStatus.BAD_REQUEST, "`since` is not a number", "send seconds since the Unix epoch") from None
    return orjson.dumps(read(after), default=str)  # without indentation: the samples are thousands of numbers
