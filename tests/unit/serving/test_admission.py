"""Tests which requests are refused before any endpoint sees them, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from syncer.serving.admission import RESERVED_CONNECTIONS
from syncer.serving.limits import TokenBuckets, client_key
from tests.harness.waiting import until
from tests.unit.serving.serving_harness import address, get, send, serving


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080", "10.1.2.3:80"]
)
def test_local_names_and_addresses_may_name_the_server(host: str) -> None:
    with serving() as url:
        assert get(f"{url}/status", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost.evil.example.com", "127.0.0.1.evil.example.com:80", ""]
)
def test_a_foreign_name_of_the_server_is_refused(host: str) -> None:
    with serving() as url:
        response = send(f"{url}/status", headers={"Host": host})
        assert response.status == 421 and "http.allowed_hosts" in response.json()["hint"]
        status, text = get(f"{url}/livez", Host=host)
        assert status == 421 and text.startswith("the header Host")


def test_further_names_of_the_server_can_be_allowed() -> None:
    with serving(allowed_hosts=["Syncer.example.com"]) as url:
        assert get(f"{url}/status", Host="syncer.example.com:8080")[0] == 200
        assert get(f"{url}/status", Host="evil.example.com")[0] == 421
    with serving(host="0.0.0.0", anonymous_read=True) as url:
        assert get(f"{url}/status", Host="any.example.com")[0] == 200
    with serving(host="0.0.0.0", anonymous_read=True, allowed_hosts=["syncer"]) as url:
        assert get(f"{url}/status", Host="syncer:8080")[0] == 200
        assert get(f"{url}/status", Host="any.example.com")[0] == 421


def test_a_page_of_another_site_is_refused() -> None:
    with serving(allowed_hosts=["dashboard.example.com"]) as url:
        for origin in ("http://evil.example.com", "null", "http://127.0.0.1:1", "http://["):
            response = send(f"{url}/echo", "POST", {"Origin": origin}, b"x")
            assert response.status == 403, origin
        for origin in (url, "https://dashboard.example.com"):
            assert send(f"{url}/echo", "POST", {"Origin": origin}, b"x").status == 200, origin


def test_no_response_allows_other_sites_to_read_it() -> None:
    with serving() as url:
        for method, path in (("GET", "/status"), ("OPTIONS", "/status"), ("GET", "/nothing")):
            headers = send(url + path, method, {"Origin": url}).headers
            assert not [name for name in headers if name.lower().startswith("access-control-")]


def test_every_response_has_security_headers() -> None:
    with serving() as url:
        for path in ("/status", "/metrics", "/livez", "/nothing", "/page"):
            headers = send(url + path).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert ("script-src 'self'" in headers["Content-Security-Policy"]) == (path == "/page")
            assert "server" not in headers


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(1000)


def test_a_large_body_is_refused() -> None:
    with serving(max_body=5000) as url:
        assert send(f"{url}/echo", "POST", body=bytes(5000)).json() == {"length": 5000}
        assert send(f"{url}/echo", "POST", body=chunks(5), chunked=True).json() == {"length": 5000}
        for body, chunked in ((bytes(5001), False), (chunks(6), True)):
            response = send(f"{url}/echo", "POST", body=body, chunked=chunked)
            assert response.status == 413
            assert response.json() == {
                "error": "the body is larger than 5000 bytes",
                "hint": "send less, or raise http.max_body",
            }


def test_too_many_requests_per_second_are_refused_but_probes_are_not() -> None:
    with serving(requests_per_second=2) as url:
        responses = [send(f"{url}/status") for _ in range(12)]
        refused = [response for response in responses if response.status == 429]
        assert responses[0].status == 200 and refused
        assert refused[0].headers["Retry-After"] == "1"
        assert get(f"{url}/livez")[0] == get(f"{url}/readyz")[0] == 200
        until(lambda: get(f"{url}/status")[0] == 200, lambda: "still refused")


def test_long_responses_leave_connections_for_probes() -> None:
    with serving(max_connections=RESERVED_CONNECTIONS + 3) as url, ExitStack() as closing:
        for _ in range(3):
            stream = closing.enter_context(socket.create_connection(address(url)))
            stream.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert stream.recv(4096).startswith(b"HTTP/1.1 200")
        response = send(f"{url}/status")
        assert response.status == 503 and response.headers["Retry-After"] == "1"
        assert get(f"{url}/livez") == (200, "ok\n")
    with serving(max_connections=3) as url, ExitStack() as closing:
        for _ in range(3):
            closing.enter_context(socket.create_connection(address(url)))
        until(lambda: get(f"{url}/livez")[0] == 503, lambda: "the limit of uvicorn does not apply")


def test_a_bucket_is_filled_again_with_time() -> None:
    buckets = TokenBuckets(10)
    assert [buckets.take("a", 100.0) for _ in range(20)] == [0.0] * 20
    assert buckets.take("a", 100.0) == pytest.approx(0.1)
    assert buckets.take("b", 100.0) == 0.0
    assert buckets.take("a", 100.05) == pytest.approx(0.05)
    assert buckets.take("a", 100.1001) == 0.0
    assert buckets.take("a", 100.1001) > 0.0


def test_the_memory_for_clients_is_bounded() -> None:
    buckets = TokenBuckets(1)
    for number in range(10_000):
        buckets.take(f"client {number}", number / 1000)
    assert len(buckets._buckets) == 4096
    assert "client 9999" in buckets._buckets and "client 0" not in buckets._buckets


def test_an_ipv6_network_counts_as_one_client() -> None:
    assert client_key("2001:db8:1:2::1") == client_key("2001:db8:1:2:ffff::2") != client_key("2001:db8:1:3::1")
    assert client_key("::ffff:10.0.0.1") == client_key("10.0.0.1") != client_key("10.0.0.2")
