"""Tests who may read and write, over real sockets."""

from __future__ import annotations

import json

import pytest

from syncer.config.schema import HttpSettings
from syncer.errors import Fatal
from syncer.serving.tokens import Tokens
from tests.unit.serving.serving_harness import READ, WRITE, FakeHealth, bearer, get, send, serving

EVERYWHERE = "0.0.0.0"


@pytest.mark.parametrize(
    ("settings", "without", "read", "write"),
    [
        ({}, {"read", "write"}, {"read", "write"}, {"read", "write"}),
        ({"read_token": READ}, set(), {"read"}, set()),
        ({"write_token": WRITE}, {"read"}, {"read"}, {"read", "write"}),
        ({"read_token": READ, "write_token": WRITE}, set(), {"read"}, {"read", "write"}),
        ({"host": EVERYWHERE, "anonymous_read": True}, {"read"}, {"read"}, {"read"}),
        ({"host": EVERYWHERE, "anonymous_read": True, "write_token": WRITE}, {"read"}, {"read"}, {"read", "write"}),
        ({"host": EVERYWHERE, "read_token": READ}, set(), {"read"}, set()),
        ({"host": EVERYWHERE, "write_token": WRITE}, set(), set(), {"read", "write"}),
        ({"host": EVERYWHERE, "read_token": READ, "write_token": WRITE}, set(), {"read"}, {"read", "write"}),
    ],
)
def test_the_address_and_the_tokens_decide_who_may_read_and_write(
    settings: dict[str, object], without: set[str], read: set[str], write: set[str]
) -> None:
    tokens = Tokens(HttpSettings.model_validate(settings))

    def allowed(token: str) -> set[str]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return {level for level in ("read", "write") if tokens.allows(level, headers)}

    assert (allowed(""), allowed(READ), allowed(WRITE)) == (without, read, write)
    assert allowed("x" * 16) == without
    assert tokens.allows("open", {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "syncer.example.com"])
def test_an_address_that_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(Fatal, match=r"http\.host.* need a token") as caught:
        Tokens(HttpSettings(host=host))
    assert "http.read_token_file" in caught.value.hint and "http.anonymous_read: true" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    assert Tokens(HttpSettings(host=host)).allows("write", {})


def test_a_missing_token_and_a_wrong_token_are_401() -> None:
    with serving(host=EVERYWHERE, read_token=READ) as url:
        for path in ("/status", "/metrics", "/openapi.json", "/stream"):
            response = send(url + path)
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="syncer"'
            assert json.loads(response.data).keys() == {"error", "hint"}
        response = send(f"{url}/status", headers=bearer("x" * 16))
        assert response.status == 401 and 'error="invalid_token"' in response.headers["WWW-Authenticate"]
        assert get(f"{url}/status", Authorization=f"Basic {READ}")[0] == 401
        assert get(f"{url}/status", Authorization=f"bearer {READ}")[0] == 200
        assert get(f"{url}/status", Authorization="Bearer \xff")[0] == 401
        assert READ not in get(f"{url}/status", Authorization=f"Bearer {READ}x")[1]


def test_writes_need_the_write_token() -> None:
    with serving(read_token=READ, write_token=WRITE) as url:
        assert send(f"{url}/echo", "POST", body=b"12").status == 401
        response = send(f"{url}/echo", "POST", bearer(READ), b"12")
        assert response.status == 403 and 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]
        response = send(f"{url}/echo", "POST", bearer(WRITE), b"12")
        assert response.status == 200 and response.json() == {"length": 2}
    with serving(read_token=READ) as url:
        response = send(f"{url}/echo", "POST", bearer(READ), b"12")
        assert response.status == 403 and "http.write_token_file" in response.json()["hint"]


def test_probes_need_no_token_but_reasons_do() -> None:
    health = FakeHealth()
    health.answer = (False, "orders: waiting for PostgreSQL")
    with serving(health, host=EVERYWHERE, read_token=READ) as url:
        assert get(f"{url}/livez") == (200, "ok\n")
        assert get(f"{url}/readyz") == (503, "failed\n")
        assert get(f"{url}/readyz", **bearer(READ)) == (503, "orders: waiting for PostgreSQL\n")
        assert get(f"{url}/page")[0] == 200
