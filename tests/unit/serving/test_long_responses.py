"""Tests streams, waiting requests, blocking calls and sockets, and that none of them delays the end of the server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from syncer.serving.server import Server
from tests.harness.waiting import until
from tests.unit.serving.serving_harness import READ, FakeHealth, address, bearer, get, server, serving

STOPS_WITHIN = 3.0
"""Seconds."""


@pytest.fixture
def running() -> Iterator[Server]:
    with server() as one:
        yield one


def raw(url: str, path: str, method: str = "GET", more: str = "") -> socket.socket:
    """Sends a request over a socket and returns it."""
    client = socket.create_connection(address(url), timeout=10)
    client.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())
    return client


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Returns what the server sends, up to the given bytes."""
    found = b""
    while end not in found:
        part = client.recv(65536)
        assert part, found
        found += part
    return found


def received(client: socket.socket) -> bytes:
    """Returns everything that the server sends until it closes the connection."""
    parts = []
    with client:
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def socket_of(url: str, path: str = "/socket", **options: Any) -> ClientConnection:
    client: ClientConnection = connect(url.replace("http", "ws") + path, proxy=None, **options)
    return client


def stop(running: Server) -> float:
    """Stops the server and returns the seconds that it took."""
    began = time.monotonic()
    running.stop()
    return time.monotonic() - began


def test_a_stream_ends_in_order_when_the_server_stops(running: Server) -> None:
    client = raw(running.url, "/stream")
    read_until(client, b"data: first")
    assert stop(running) < STOPS_WITHIN
    assert received(client).endswith(b"data: last\n\n\r\n0\r\n\r\n")


def test_a_waiting_request_gets_503_when_the_server_stops(running: Server) -> None:
    client = raw(running.url, "/wait")
    until(lambda: get(f"{running.url}/livez")[0] == 200, lambda: "not live")
    running.end_long_responses()
    with client:
        answer = read_until(client, b"}")
    assert answer.startswith(b"HTTP/1.1 503") and b"the daemon is stopping" in answer
    assert get(f"{running.url}/status")[0] == 200, "other requests are answered until the end"
    assert get(f"{running.url}/wait")[0] == 503
    assert stop(running) < STOPS_WITHIN


def test_a_waiting_request_has_a_time_out(running: Server) -> None:
    assert get(f"{running.url}/wait?timeout=0.05") == (200, '"timeout"\n')


def test_a_waiting_request_ends_when_its_client_goes() -> None:
    # 17: one request, and the connections reserved for probes
    with capture_logs() as entries, server(max_connections=17) as running:
        with raw(running.url, "/wait"):
            until(lambda: get(f"{running.url}/status")[0] == 503, lambda: "the waiting request is not counted")
        until(lambda: get(f"{running.url}/status")[0] == 200, lambda: "the request still waits")
    assert not entries


def test_a_response_that_ignores_the_end_is_cut(running: Server) -> None:
    client = raw(running.url, "/flood")
    read_until(client, bytes(1000))
    assert stop(running) < STOPS_WITHIN
    client.close()


def test_blocking_calls_leave_the_server_responsive_and_are_bounded() -> None:
    health = FakeHealth()
    with server(health) as running, ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(get, f"{running.url}/block") for _ in range(12)]
        until(lambda: len(health.blocked) == 8, lambda: f"{len(health.blocked)} threads")
        assert get(f"{running.url}/status")[0] == 200
        health.release.set()
        assert [future.result() for future in futures] == [(200, '"released"\n')] * 12
    assert len(health.blocked) == 8


def test_a_blocking_call_does_not_delay_the_end() -> None:
    health = FakeHealth()
    running = server(health)
    running.start()
    client = raw(running.url, "/block")
    until(lambda: health.blocked, lambda: "no thread")
    assert stop(running) < STOPS_WITHIN
    health.release.set()
    client.close()


def test_an_error_in_a_stream_closes_the_connection_and_is_logged(running: Server) -> None:
    with capture_logs() as entries:
        answer = received(raw(running.url, "/fail_late"))
    assert b"data: first" in answer and b"hunter2" not in answer
    assert not answer.endswith(b"0\r\n\r\n"), "the client can see that the stream is not complete"
    assert [(entry["event"], entry["path"]) for entry in entries] == [("HTTP request failed", "/fail_late")]


def test_a_slow_client_loses_its_connection() -> None:
    with serving(request_timeout=0.2) as url:
        silent = socket.create_connection(address(url), timeout=10)
        assert ended(silent)
        half = socket.create_connection(address(url), timeout=10)
        half.sendall(b"GET /status HTTP/1.1\r\nHost: loc")
        assert ended(half)
        assert ended(raw(url, "/echo", "POST", "Content-Length: 10\r\n"))
        with raw(url, "/wait?timeout=0.6") as patient:  # the server may be slow
            assert patient.recv(4096).startswith(b"HTTP/1.1 200")
        reused = raw(url, "/livez")
        read_until(reused, b"ok\n")
        assert ended(reused)
        assert get(f"{url}/livez")[0] == 200


def ended(client: socket.socket) -> bool:
    """Waits until the server closes the connection. Returns whether it sent nothing before."""
    with client:
        try:
            return client.recv(4096) == b""
        except ConnectionResetError:
            return True


def test_a_client_that_does_not_read_loses_its_connection() -> None:
    with server(request_timeout=0.2, max_connections=17) as running, raw(running.url, "/flood"):
        until(lambda: get(f"{running.url}/status")[0] == 503, lambda: "the stream is not counted")
        until(lambda: get(f"{running.url}/status")[0] == 200, lambda: "the stream goes on")


def test_a_request_that_is_not_http_is_400(running: Server) -> None:
    client = socket.create_connection(address(running.url), timeout=10)
    client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert received(client).startswith(b"HTTP/1.1 400")


def test_a_socket_echoes_and_is_closed_when_the_server_stops(running: Server) -> None:
    with socket_of(running.url) as client:
        client.send("hello")
        assert client.recv(10) == "hello"
        assert stop(running) < STOPS_WITHIN
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(10)
        assert caught.value.rcvd and caught.value.rcvd.code == 1012


def test_an_error_in_a_socket_closes_it(running: Server) -> None:
    with socket_of(running.url) as client:
        client.send("fail")
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(10)
        assert caught.value.rcvd and (caught.value.rcvd.code, caught.value.rcvd.reason) == (1011, "")


def test_a_socket_is_refused_like_a_request() -> None:
    with serving(read_token=READ) as url:
        with socket_of(url, additional_headers=bearer(READ)) as client:
            client.send("hello")
            assert client.recv(10) == "hello"
        cases: list[tuple[dict[str, Any], int]] = [
            ({}, 401),
            ({"origin": Origin("http://evil.example.com")}, 403),
            ({"additional_headers": bearer(READ), "origin": Origin("null")}, 403),
        ]
        for options, status in cases:
            with pytest.raises(InvalidStatus) as caught:
                socket_of(url, **options)
            assert caught.value.response.status_code == status
            assert json.loads(caught.value.response.body or b"")["error"]
        with pytest.raises(InvalidStatus) as caught:
            socket_of(url, "/nothing", additional_headers=bearer(READ))
        assert caught.value.response.status_code in (403, 404)


def test_a_server_that_was_not_started_can_be_stopped() -> None:
    one = server()
    one.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address(one.url))
