"""`/models/MODEL/changes`: the changes of a read model's documents, as server-sent events or over WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from syncer.serving.endpoint import Endpoint, SocketEndpoint
from syncer.serving.problem import Problem
from syncer.serving.push.cursor import Cursor
from syncer.serving.push.filters import Filter
from syncer.serving.push.hub import Hub
from syncer.serving.push.stream import Stream, as_event, as_text
from syncer.serving.services import DocumentTopics, Services
from syncer.serving.tools import Stopping, Tools, check_query

_PATH = "/models/{model}/changes"
_MEDIA_TYPE = "text/event-stream"
_HEADERS = {"X-Accel-Buffering": "no"}
"""nginx would hold back events otherwise."""
_PARAMETERS = ("documents", "from", "key", "where", "last_event_id")
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def _query(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_TEXTS = {"type": "array", "items": {"type": "string"}}
_OPERATION = {
    "operationId": "changes",
    "summary": "The changes of documents as they happen, as server-sent events",
    "description": "The stream does not end by itself. The same path accepts WebSocket connections.",
    "parameters": [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}},
        _query("documents", "Whether upserts have their document.", {"type": "boolean", "default": False}),
        _query(
            "from",
            "Where a client without an id begins: with the next change, or with all documents.",
            {"enum": ["end", "beginning"], "default": "end"},
        ),
        _query("key", "Only documents with one of these ids.", _TEXTS),
        _query("where", "Only documents with this value of a field: `status:paid`, `customer.country:DE`.", _TEXTS),
        _query("last_event_id", "The id of the last event that the client has received.", {"type": "string"}),
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "As `last_event_id`. Browsers send it by themselves.",
            "schema": {"type": "string"},
        },
    ],
    "responses": {
        "200": {"description": "The stream of events", "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}}},
        "400": {"description": "A parameter or the id is malformed.", "content": _ERROR},
        "404": {"description": "The read model does not exist.", "content": _ERROR},
        "409": {"description": "The read model has no Kafka sink.", "content": _ERROR},
    },
}


class EventStream(StreamingResponse):
    """A response with the messages of a stream, which it closes in any case."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(self._events(stream), headers=_HEADERS, media_type=_MEDIA_TYPE)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()

    @staticmethod
    async def _events(stream: Stream) -> AsyncIterator[bytes]:
        try:
            async for messages in stream.messages():
                yield b"".join(map(as_event, messages))
        except Stopping:
            return


def endpoints(services: Services, tools: Tools) -> Sequence[Endpoint | SocketEndpoint]:
    topics = services.documents
    if topics is None:
        return []
    hub = Hub(tools, topics.settings)

    async def changes(request: Request) -> Response:
        if request.method == "HEAD":
            _parse(request)
            topics.topic(request.path_params["model"])
            return Response(headers=_HEADERS, media_type=_MEDIA_TYPE)
        return EventStream(await _subscribe(hub, topics, request))

    async def socket(websocket: WebSocket) -> None:
        stream = await _subscribe(hub, topics, websocket)
        try:
            await websocket.accept()
            await _talk(websocket, stream)
        finally:
            stream.close()

    return [Endpoint(_PATH, changes, _OPERATION), SocketEndpoint(_PATH, socket)]


async def _subscribe(hub: Hub, topics: DocumentTopics, request: HTTPConnection) -> Stream:
    options = _parse(request)
    model = request.path_params["model"]
    return await hub.subscribe(topics.topic(model), topics.metrics(model), **options)


async def _talk(websocket: WebSocket, stream: Stream) -> None:
    """Sends messages until the stream ends or the client goes. Ignores what the client sends."""

    async def send() -> None:
        async for messages in stream.messages():
            for message in messages:
                await websocket.send_text(as_text(message))
        await websocket.close()

    async def listen() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        raise WebSocketDisconnect

    tasks = [asyncio.ensure_future(send()), asyncio.ensure_future(listen())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def _parse(request: HTTPConnection) -> dict[str, Any]:
    """Returns the arguments of `Hub.subscribe`. Raises Problem (400)."""
    query = request.query_params
    check_query(query, _PARAMETERS, lists=("key", "where"))
    documents, begin = query.get("documents", "false"), query.get("from", "end")
    if documents not in ("true", "false"):
        raise _bad(f"documents={documents!r} is invalid", "give true or false")
    if begin not in ("end", "beginning"):
        raise _bad(f"from={begin!r} is invalid", "give end or beginning")
    return {
        "filter": _filter(query),
        "cursor": _cursor(request.headers.get("last-event-id") or query.get("last_event_id", "")),
        "documents": documents == "true",
        "beginning": begin == "beginning",
    }


def _filter(query: QueryParams) -> Filter:
    try:
        return Filter.parse(query.getlist("key"), query.getlist("where"))
    except ValueError as error:
        raise _bad(f"the filter is invalid: {error}", "for example key=17&key=18, or where=status:paid") from error


def _cursor(text: str) -> Cursor | None:
    try:
        return Cursor.decode(text) if text else None
    except ValueError as error:
        hint = "send the id of the last event as it is, or no id to begin again"
        raise _bad(f"the id {text[:80]!r} is invalid: {error}", hint) from error


def _bad(error: str, hint: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, error, hint)
