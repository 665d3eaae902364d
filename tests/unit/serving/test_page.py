"""Tests the page's files and values over HTTP. tests/browser shows the page in a browser."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from syncer.config.schema import HttpSettings
from syncer.serving.server import Server
from syncer.serving.services import Services
from tests.harness.overview import ExampleOverview
from tests.unit.serving.serving_harness import FakeHealth, get, send

STATIC = Path(__file__).parents[3] / "syncer" / "serving" / "static"


@contextmanager
def page(example: ExampleOverview | None = None, **settings: Any) -> Iterator[str]:
    """Yields the URL of a server with a page."""
    example = example or ExampleOverview()
    with Server(
        HttpSettings(port=0, **settings), Services(FakeHealth(), example.metrics.registry, overview=example.read)
    ) as server:
        yield server.url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with page() as found:
        yield found


def test_the_page_and_every_file_that_it_names_are_served(url: str) -> None:
    html = send(f"{url}/")
    assert html.status == 200 and html.headers["Content-Type"] == "text/html; charset=utf-8"
    names = re.findall(r'(?:src|href)="(static/[^"]+)"', html.data.decode())
    imported = [
        f"static/{name}" for path in STATIC.glob("*.js") for name in re.findall(r'from "\./([^"]+)"', path.read_text())
    ]
    assert {"static/page.js", "static/uPlot.iife.min.js", "static/charts.js"} <= {*names, *imported}
    for name in {*names, *imported}:
        assert get(f"{url}/{name}")[0] == 200, name


def test_the_page_names_no_other_server_and_has_no_inline_code() -> None:
    for path in STATIC.iterdir():
        if path.is_file():
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), path.name
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|style=|<script>|\son[a-z]+=|javascript:", html)


def test_the_policy_forbids_inline_code_and_other_servers(url: str) -> None:
    policy = send(f"{url}/").headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(policy)
    assert not any("unsafe" in part for part in policy)


def test_a_browser_downloads_a_file_once(url: str) -> None:
    first = send(f"{url}/static/page.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = send(f"{url}/static/page.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.data) == (304, b"")
    assert send(f"{url}/static/page.js", headers={"If-None-Match": '"other"'}).status == 200


def test_the_policy_of_a_stored_page_stays(url: str) -> None:
    """Once, the policy of a 304 response replaced that of the stored page, and a reload showed an empty page."""
    first = send(f"{url}/")
    again = send(f"{url}/", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 304
    assert again.headers["Content-Security-Policy"] == first.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "vendor", "vendor%2fuPlot.min.css", "uPlot.LICENSE"])
def test_other_files_are_not_served(url: str, name: str) -> None:
    assert get(f"{url}/static/{name}")[0] == 404


def test_the_values_and_only_new_samples() -> None:
    example = ExampleOverview(1000.0)
    for _ in range(3):
        example.work(1, 1)
    with page(example) as url:
        response = send(f"{url}/overview")
        found = json.loads(response.data)
        assert response.headers["Content-Type"] == "application/json" and list(found["models"]) == [
            "orders",
            "summaries",
        ]
        assert found["history"]["at"] == [1002, 1004, 1006]
        assert json.loads(get(f"{url}/overview?since=1004")[1])["history"]["at"] == [1006]
        assert json.loads(get(f"{url}/overview?since=nan")[1])["history"]["at"] == []
        status, text = get(f"{url}/overview?since=yesterday")
        assert status == 400 and "since" in text


def test_only_the_values_need_a_token() -> None:
    with page(read_token="a" * 32) as url:
        assert get(f"{url}/")[0] == 200 and get(f"{url}/static/page.js")[0] == 200
        assert get(f"{url}/overview")[0] == 401
        assert get(f"{url}/overview", Authorization=f"Bearer {'a' * 32}")[0] == 200


def test_the_values_contain_no_token() -> None:
    with page(read_token="b" * 32) as url:
        assert "b" * 32 not in get(f"{url}/overview", Authorization=f"Bearer {'b' * 32}")[1]


def test_a_process_without_an_overview_has_no_page() -> None:
    with Server(HttpSettings(port=0), Services(FakeHealth(), CollectorRegistry())) as server:
        assert get(f"{server.url}/")[0] == 404 and get(f"{server.url}/overview")[0] == 404


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        ("uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
        ("uPlot.LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
    ],
)
def test_the_vendored_files_are_those_of_uplot_1_6_32(name: str, digest: str) -> None:
    assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
