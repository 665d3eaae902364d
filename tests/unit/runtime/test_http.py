"""Tests the HTTP interface over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from prometheus_client import CollectorRegistry

from syncer.errors import Fatal
from syncer.runtime.http import Server
from syncer.telemetry.metrics import Metrics


class Health:
    def __init__(self) -> None:
        self.answer = (True, "")
        self.broken = False

    def live(self) -> tuple[bool, str]:
        if self.broken:
            raise RuntimeError("hunter2")
        return True, ""

    def ready(self) -> tuple[bool, str]:
        return self.answer

    def status(self) -> dict[str, Any]:
        return {"models": {"orders": {"state": "running", "lag_seconds": 0.5}}, "since": 1}


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def url(health: Health) -> Iterator[str]:
    registry = CollectorRegistry()
    Metrics(registry).for_model("orders").lag("changes", 3)
    with Server("127.0.0.1", 0, health, registry) as server:
        yield server.url


def get(url: str, method: str = "GET") -> tuple[int, str]:
    with urllib3.PoolManager(retries=False) as pool:
        answer = pool.request(method, url)
        return answer.status, answer.data.decode()


def test_every_path_answers_and_unknown_paths_list_the_known_ones(url: str, health: Health) -> None:
    assert get(f"{url}/livez") == (200, "ok\n")
    assert get(f"{url}/readyz") == (200, "ok\n")
    health.answer = (False, "orders: waiting for PostgreSQL")
    assert get(f"{url}/readyz") == (503, "orders: waiting for PostgreSQL\n")
    assert get(f"{url}/livez", "HEAD") == (200, "")
    assert get(f"{url}/livez", "POST")[0] == 405
    status, text = get(f"{url}/nothing")
    assert status == 404 and "/metrics /livez /readyz /status" in text


def test_status_of_all_read_models_and_of_one(url: str) -> None:
    status, text = get(f"{url}/status")
    assert status == 200 and json.loads(text)["models"]["orders"]["state"] == "running"
    assert json.loads(get(f"{url}/status?model=orders")[1]) == {"state": "running", "lag_seconds": 0.5}
    status, text = get(f"{url}/status?model=nope")
    assert status == 404 and json.loads(text)["models"] == ["orders"]


def test_metrics_are_served_in_prometheus_format(url: str) -> None:
    status, text = get(f"{url}/metrics")
    assert status == 200
    assert 'syncer_lag_records{lane="changes",model="orders"} 3.0' in text


def test_an_internal_error_does_not_leak_details(url: str, health: Health) -> None:
    health.broken = True
    assert get(f"{url}/livez") == (500, "internal error; see the log\n")
    assert get(f"{url}/readyz")[0] == 200


def test_a_port_in_use_is_a_clear_error(url: str, health: Health) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(Fatal, match=rf"http\.port {port}: cannot listen: Address already in use"):
        Server("127.0.0.1", port, health, CollectorRegistry())


def test_a_silent_client_does_not_delay_other_clients(url: str) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))):
        assert get(f"{url}/livez")[0] == 200


def test_the_server_listens_on_ipv6(health: Health) -> None:
    try:
        server = Server("::1", 0, health, CollectorRegistry())
    except Fatal as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server:
        assert get(f"{server.url}/livez") == (200, "ok\n")
