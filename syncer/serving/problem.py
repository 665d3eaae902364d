"""The responses that report an error: JSON with `error` and `hint`, or plain text for probes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import PlainTextResponse, Response

from syncer.errors import SyncerError
from syncer.freshness.refused import status_of

_RETRY_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


class Problem(Exception):
    """An error that the client receives. Endpoints raise it.

    status: the HTTP status, 400 or higher.
    error: the text for the client. It must not contain secrets.
    hint: what the client has to change or run.
    headers: further headers of the response.
    fields: further values of the JSON object.
    """

    def __init__(
        self,
        status: HTTPStatus,
        error: str,
        hint: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.hint, self.headers, self.fields = status, error, hint, headers, fields

    @classmethod
    def of(cls, error: SyncerError) -> Problem:
        """Returns the problem for an error of the syncer, with the status that `freshness.refused` gives it."""
        status = status_of(error)
        text = ": ".join(part for part in (error.where, error.what, error.why) if part)
        return cls(status, text, error.hint, headers={"Retry-After": "1"} if status in _RETRY_LATER else None)

    def response(self, *, plain: bool = False) -> Response:
        """Returns the response. plain: as one line of text, for probes."""
        if plain:
            text = f"{self.error}; {self.hint}\n" if self.hint else f"{self.error}\n"
            return PlainTextResponse(text, self.status, self.headers)
        return json_response({"error": self.error, "hint": self.hint, **self.fields}, self.status, self.headers)


def json_response(value: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a response with the value as indented JSON. Values that JSON does not have are sent as text."""
    return Response(orjson.dumps(value, default=str, option=_OPTIONS), status, headers, "application/json")
