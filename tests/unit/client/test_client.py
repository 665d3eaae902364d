"""Both clients against a small server whose responses each test sets."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import syncer.client
from syncer.client import FreshnessError, Session, TimedOut, Unavailable
from tests.unit.client.client_harness import SmallServer, client

BEHIND = (504, {"error": "behind", "hint": "wait longer", "wanted": 9, "reached": 7, "reason": "a backlog"})


@pytest.fixture
def server() -> Iterator[SmallServer]:
    server = SmallServer()
    yield server
    server.close()


@pytest.fixture(params=["sync", "asyncio"])
def api(request: pytest.FixtureRequest, server: SmallServer) -> Iterator[Any]:
    with client(request.param, server.url + "/", "r" * 16, "w" * 16) as api:
        yield api


def read(api: Any, session: Session, **options: Any) -> Any:
    options = {"keys": ["17"], "fresh_within": 0.2, "timeout": 1.0} | options
    functions = {"read_model": lambda: "document", "write_store": lambda: "row"}
    return api.read("orders", session, **functions | options)


def test_a_wait_sends_its_parameters_and_the_token_for_reads(api: Any, server: SmallServer) -> None:
    server.respond = lambda *_: (200, {"staleness_seconds": 0.1})
    assert api.wait("my orders", "x:7@1/2", timeout=2.5, searchable=True) == {"staleness_seconds": 0.1}
    [(method, path, _)] = server.requests
    assert (method, urlsplit(path).path) == ("GET", "/wait")
    fields = {name: value for name, [value] in parse_qs(urlsplit(path).query).items()}
    assert fields == {"model": "my orders", "token": "x:7@1/2", "timeout": "2.500", "searchable": "true"}
    assert server.authorization == ["Bearer " + "r" * 16]


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_an_address_without_a_scheme_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="'localhost:8080' is no URL of a daemon"), client(kind, "localhost:8080"):
        pass


@pytest.mark.usefixtures("silent")
def test_a_slow_answer_is_told_from_no_answer(api: Any) -> None:
    with pytest.raises(Unavailable, match=r"has not answered /status in 0\.2 s"):
        api.status("orders", timeout=0.2)


def test_a_refresh_sends_keys_or_rows_and_the_token_for_writes(api: Any, server: SmallServer) -> None:
    api.refresh("a/b", token="x:7", timeout=3.0, keys=["17", ["EU", 4]])
    api.refresh("a/b", table="items", rows=[{"order_id": 1}])
    assert server.requests == [
        ("POST", "/models/a%2Fb/refresh", {"keys": ["17", ["EU", 4]], "token": "x:7", "timeout": 3.0}),
        (
            "POST",
            "/models/a%2Fb/refresh",
            {"table": "items", "rows": [{"order_id": 1}], "token": "now", "timeout": 5.0},
        ),
    ]
    assert set(server.authorization) == {"Bearer " + "w" * 16}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, FreshnessError) for status in (400, 401, 403, 404, 409, 413, 422)),
        *((status, Unavailable) for status in (302, 429, 500, 503)),
        (504, TimedOut),
    ],
)
def test_each_status_has_its_error(api: Any, server: SmallServer, status: int, kind: type[FreshnessError]) -> None:
    server.respond = lambda *_: (status, {"error": "no", "hint": "do", "reached": 7})
    with pytest.raises(FreshnessError, match="no; do") as raised:
        api.wait("orders")
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.answer["reached"]) == (status, 7)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff"])
def test_a_response_of_another_server_is_an_error(api: Any, server: SmallServer, body: bytes) -> None:
    server.respond = lambda *_: (200, body)
    with pytest.raises(Unavailable, match="is not from a daemon"):
        api.status("orders")


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_an_unreachable_daemon_is_unavailable(kind: str) -> None:
    with client(kind, "http://127.0.0.1:1") as api, pytest.raises(Unavailable, match="does not answer"):
        api.wait("orders")


def test_a_session_without_a_write_reads_the_read_model_without_a_request(api: Any, server: SmallServer) -> None:
    shown = read(api, Session())
    assert (shown.value, shown.source, server.requests) == ("document", "read model", [])


def test_a_fresh_read_model_is_read(api: Any, server: SmallServer) -> None:
    session = Session()
    session.wrote("x:7")
    shown = read(api, session)
    assert (shown.value, shown.source, shown.reason) == ("document", "read model", "")
    assert server.paths == ["GET /wait"] and session.token == "x:7"


@pytest.mark.parametrize("answer", [BEHIND, (503, {"error": "busy"}), (429, {"error": "slow down"}), (500, b"")])
def test_a_read_model_that_is_behind_is_refreshed(api: Any, server: SmallServer, answer: tuple[int, Any]) -> None:
    server.respond = lambda method, *_: answer if method == "GET" else (200, {})
    shown = read(api, Session("x:7"))
    assert (shown.value, shown.source) == ("document", "refreshed")
    assert shown.reason
    assert server.paths == ["GET /wait", "POST /models/orders/refresh"]
    assert server.requests[1][2]["keys"] == ["17"] and server.requests[1][2]["token"] == "x:7"


@pytest.mark.parametrize("status", [401, 403, 404, 409, 413, 422, 429, 500, 503, 504])
def test_the_write_store_is_read_if_a_refresh_fails(api: Any, server: SmallServer, status: int) -> None:
    server.respond = lambda method, *_: BEHIND if method == "GET" else (status, {"error": "refused"})
    shown = read(api, Session("x:7"))
    assert (shown.value, shown.source, shown.reason) == ("row", "write store", "behind; wait longer; refused")


@pytest.mark.parametrize("options", [{"keys": []}, {"searchable": True}])
def test_a_refresh_that_cannot_help_is_left_out(api: Any, server: SmallServer, options: dict[str, Any]) -> None:
    server.respond = lambda *_: BEHIND
    assert read(api, Session("x:7"), **options).source == "write store"
    assert server.paths == ["GET /wait"]


@pytest.mark.parametrize("status", [400, 409])
def test_the_token_of_a_lost_commit_is_forgotten(api: Any, server: SmallServer, status: int) -> None:
    server.respond = lambda *_: (status, {"error": "the transaction was rolled back"})
    session = Session("x:7")
    assert read(api, session).source == "write store"
    assert (session.token, server.paths) == ("", ["GET /wait"])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_wrong_credentials_and_names_are_raised(api: Any, server: SmallServer, status: int) -> None:
    server.respond = lambda *_: (status, {"error": "no"})
    with pytest.raises(FreshnessError, match="no"):
        read(api, Session("x:7"))


def test_a_read_model_whose_store_is_down_falls_back(api: Any, server: SmallServer) -> None:
    def read_model() -> str:
        raise Unavailable("Redis is down")

    assert read(api, Session(), read_model=read_model).source == "write store"
    shown = read(api, Session("x:7"), read_model=read_model)
    assert (shown.source, shown.reason) == ("write store", "Redis is down")


def test_an_error_of_the_callers_function_is_raised(api: Any, server: SmallServer) -> None:
    def read_model() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read(api, Session(), read_model=read_model)


class Silent:
    """Answers only after the test."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def __call__(self, *_: Any) -> tuple[int, Any]:
        self.released.wait(20)
        return 200, {}


@pytest.fixture
def silent(server: SmallServer) -> Iterator[Silent]:
    server.respond = silent = Silent()
    yield silent
    silent.released.set()


@pytest.mark.usefixtures("silent")
def test_all_steps_share_one_deadline(api: Any, server: SmallServer) -> None:
    began = time.monotonic()
    shown = read(api, Session("x:7"), fresh_within=0.1, timeout=2.0)
    took = time.monotonic() - began
    assert shown.source == "write store" and "has not answered" in shown.reason
    assert 1.9 <= took < 4.0, took
    assert server.paths == ["GET /wait", "POST /models/orders/refresh"]
    assert 0 < server.requests[1][2]["timeout"] <= 0.9, "the wait took 1.1 s of 2 s"


@pytest.mark.usefixtures("silent")
def test_without_time_only_the_write_store_is_read(api: Any, server: SmallServer) -> None:
    shown = read(api, Session("x:7"), fresh_within=5.0, timeout=0.2)
    assert (shown.source, server.paths) == ("write store", ["GET /wait"])


def test_the_client_is_small() -> None:
    """Counts statements: lines without comments, docstrings and blank lines."""
    code = 0
    for path in Path(syncer.client.__file__).parent.glob("*.py"):
        text = path.read_text()
        strings = {
            line
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for line in range(node.lineno, (node.end_lineno or 0) + 1)
        }
        code += sum(
            1 for at, line in enumerate(text.splitlines(), 1) if line.strip() and line[:1] != "#" and at not in strings
        )
    assert code < 250
