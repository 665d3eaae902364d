"""Tests the paths over real sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
import urllib3
from structlog.testing import capture_logs

from syncer.config.schema import HttpSettings
from syncer.errors import Fatal
from syncer.serving.server import Server
from tests.unit.serving.serving_harness import FakeHealth, get, send, services, serving


@pytest.fixture
def health() -> FakeHealth:
    return FakeHealth()


@pytest.fixture
def url(health: FakeHealth) -> Iterator[str]:
    with serving(health) as address:
        yield address


def test_every_path_answers_and_unknown_paths_list_the_known_ones(url: str, health: FakeHealth) -> None:
    assert get(f"{url}/livez") == (200, "ok\n")
    assert get(f"{url}/readyz") == (200, "ok\n")
    health.answer = (False, "orders: waiting for PostgreSQL")
    assert get(f"{url}/readyz") == (503, "orders: waiting for PostgreSQL\n")
    assert get(f"{url}/livez", "HEAD") == (200, "")
    response = send(f"{url}/livez", "POST")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    assert response.data == b"the path does not support this method; use GET or HEAD\n"
    assert json.loads(get(f"{url}/status", "DELETE")[1])["hint"] == "use GET or HEAD"
    assert get(f"{url}/status/")[0] == 404
    status, text = get(f"{url}/nothing")
    assert status == 404 and "/metrics /livez /readyz /status" in text


def test_status_of_all_read_models_and_of_one(url: str) -> None:
    status, text = get(f"{url}/status")
    assert status == 200 and json.loads(text)["models"]["orders"]["state"] == "running"
    assert json.loads(get(f"{url}/status?model=orders")[1]) == {"state": "running", "lag_seconds": 0.5}
    status, text = get(f"{url}/status?model=nope")
    assert status == 404 and json.loads(text)["models"] == ["orders"]
    for query, what in (("modle=orders", "unknown parameters: modle"), ("model=a&model=b", "given more than once")):
        status, text = get(f"{url}/status?{query}")
        assert status == 400 and what in json.loads(text)["error"]


def test_metrics_are_served_in_prometheus_format(url: str) -> None:
    status, text = get(f"{url}/metrics")
    assert status == 200
    assert 'syncer_lag_records{lane="changes",model="orders"} 3.0' in text
    status, text = get(f"{url}/metrics?name[]=syncer_lag_records")
    assert status == 200 and {line for line in text.splitlines() if line[0] != "#"} == {
        'syncer_lag_records{lane="changes",model="orders"} 3.0'
    }
    response = send(f"{url}/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert response.data.endswith(b"# EOF\n")
    response = send(f"{url}/metrics", headers={"Accept-Encoding": "gzip"}, decode_content=False)
    assert response.headers["Content-Encoding"] == "gzip" and response.data[:2] == b"\x1f\x8b"
    assert get(f"{url}/metrics", Accept="application/openmetrics-text;version=x")[0] == 406


def test_an_internal_error_does_not_leak_details(url: str, health: FakeHealth) -> None:
    health.broken = True
    with capture_logs() as entries:
        status = get(f"{url}/livez")
    assert [(entry["event"], entry["path"]) for entry in entries] == [("HTTP request failed", "/livez")]
    assert status == get(f"{url}/livez") == (500, "internal error; see the log\n")
    assert get(f"{url}/readyz")[0] == 200


def test_a_port_in_use_is_a_clear_error(url: str, health: FakeHealth) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(Fatal, match=rf"http\.port {port}: cannot listen: Address already in use"):
        Server(HttpSettings(port=port), services(health))


def test_a_response_is_not_delayed(url: str) -> None:
    """Without TCP_NODELAY, each response waits for the client's delayed acknowledgement, 40 ms on Linux."""
    seconds = []
    with urllib3.PoolManager(retries=False) as pool:
        for _ in range(60):
            began = time.perf_counter()
            pool.request("GET", f"{url}/livez")
            seconds.append(time.perf_counter() - began)
    assert min(seconds[20:]) < 0.03, "the first ones are acknowledged at once"


def test_a_silent_client_does_not_delay_other_clients(url: str) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))):
        assert get(f"{url}/livez")[0] == 200


def test_the_server_listens_on_ipv6(health: FakeHealth) -> None:
    try:
        server = Server(HttpSettings(host="::1", port=0), services(health))
    except Fatal as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server:
        assert get(f"{server.url}/livez") == (200, "ok\n")
