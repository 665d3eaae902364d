"""The protocol of the client: requests, errors, and the order of the fallbacks. No I/O.

A conversation is a generator. It yields a `Request`, or a function of the caller. The transport sends back the result,
or throws an error into it. So both transports share every decision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote, urlencode

T = TypeVar("T")
Steps = Generator[Any, Any, T]
GRACE = 1.0
"""Seconds that a response may take after the time-out in its request."""
_LONGEST = 60.0
"""Seconds. The daemon refuses longer time-outs."""


class FreshnessError(Exception):
    """A request that failed. status: of the response, 0 if there was none. answer: the JSON object of the response."""

    def __init__(self, text: str, status: int = 0, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.status, self.answer = status, answer or {}


class TimedOut(FreshnessError):
    """The time-out passed (504). `answer` of a wait has `wanted` and `reached` (snapshot clocks), and `reason`."""


class Unavailable(FreshnessError):
    """The daemon is unreachable or busy, or a resync is switching readers. The same request can succeed later."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the daemon. After `seconds`, the transport raises `Unavailable`."""

    method: str
    path: str
    seconds: float
    body: bytes | None = None

    def headers(self, read_token: str, write_token: str) -> dict[str, str]:
        token = write_token if self.method == "POST" else read_token or write_token
        return {"Authorization": f"Bearer {token}"} if token else {}


@dataclass(slots=True)
class Session:
    """One user's session. Keep `token` in the session's cookie or row.

    The last token is enough if writes do not overlap: a snapshot that shows a commit shows all earlier ones.
    """

    token: str = ""

    def wrote(self, token: str) -> None:
        self.token = token


@dataclass(frozen=True, slots=True)
class Shown(Generic[T]):
    """A value. source: `read model`, `refreshed` or `write store`. reason: why the steps before failed."""

    value: T
    source: str
    reason: str = ""


class Options(TypedDict, total=False):
    """The options of `Client.read`."""

    keys: Sequence[object]
    """The documents that a refresh can help with, by id."""
    fresh_within: float
    """Seconds to wait for the stream."""
    timeout: float
    """Seconds for all requests together. After them, the query of the write store begins."""
    searchable: bool
    """The read model is searched, so wait until searches find the documents. A refresh cannot help."""


def wait(model: str, token: str, timeout: float, searchable: bool, most: float | None = None) -> Request:
    timeout = min(timeout, _LONGEST)
    fields = {"model": model, "token": token, "timeout": f"{timeout:.3f}", "searchable": str(searchable).lower()}
    return Request("GET", f"/wait?{urlencode(fields)}", timeout + GRACE if most is None else most)


def refresh(model: str, what: Mapping[str, Any], token: str, timeout: float, most: float | None = None) -> Request:
    body = json.dumps({**what, "token": token, "timeout": min(timeout, _LONGEST)}).encode()
    path = f"/models/{quote(model, safe='')}/refresh"
    return Request("POST", path, timeout + GRACE if most is None else most, body)


def status(model: str, timeout: float) -> Request:
    return Request("GET", f"/status?{urlencode({'model': model})}", timeout)


def parse(status: int, body: bytes) -> dict[str, Any]:
    """Returns the JSON object of a response. Raises the error that its status stands for."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    fields = answer if isinstance(answer, dict) else {}
    kind = TimedOut if status == 504 else Unavailable if status == 429 or not 400 <= status < 500 else FreshnessError
    text = fields.get("error") or f"the response with status {status} is not from a daemon"
    raise kind(f"{text}; {fields['hint']}" if fields.get("hint") else text, status, fields)


def base(url: str) -> str:
    """Returns the URL of a daemon without its last slash. Raises ValueError if it is no URL."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no URL of a daemon, such as http://127.0.0.1:8080")
    return url.rstrip("/")


def too_slow(url: str, request: Request) -> Unavailable:
    """Returns the error for a daemon that took the request and did not answer in time."""
    return Unavailable(f"the daemon at {url} has not answered {request.path.split('?')[0]} in {request.seconds:.1f} s")


def one(request: Request) -> Steps[dict[str, Any]]:
    return (yield request)  # type: ignore[no-any-return]


def read(
    model: str,
    session: Session,
    read_model: Callable[[], Any],
    write_store: Callable[[], Any],
    now: Callable[[], float],
    *,
    keys: Sequence[object] = (),
    fresh_within: float = 0.3,
    timeout: float = 2.0,
    searchable: bool = False,
) -> Steps[Shown[Any]]:
    """Holds the conversation of `Client.read`. now: returns a time in seconds."""
    deadline, token = now() + timeout, session.token
    try:
        if token:
            yield wait(model, token, min(fresh_within, timeout), searchable, min(fresh_within + GRACE, timeout))
        return Shown((yield read_model), "read model")
    except FreshnessError as error:
        if error.status in (401, 403, 404):
            raise
        reason = str(error)
        if error.status in (400, 409):  # the commit does not exist, or not on this server
            session.token = token = ""
    left = deadline - now()
    if token and keys and left > 0 and not searchable:
        try:
            yield refresh(model, {"keys": list(keys)}, token, left, left)
            return Shown((yield read_model), "refreshed", reason)
        except FreshnessError as error:
            reason = reason if str(error) == reason else f"{reason}; {error}"
    return Shown((yield write_store), "write store", reason)
