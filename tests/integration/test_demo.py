"""`make demo` in a terminal and through a pipe, the demo that KEEP=1 leaves running, and its removal."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import urllib3

from devstack import Stack
from devstack import stack as devstack
from tests.harness import terminal
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
SMALL = {"ORDERS": "1000", "LIVE_SECONDS": "1"}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Returns the environment of a user whose settings name another deployment. The demo must not touch it."""
    elsewhere = {"SYNCER_MODELS": "/nowhere", "SYNCER_KAFKA__GROUP_PREFIX": "mine", "SHOP_PGPORT": "1"}
    chosen = {**os.environ, **SMALL, **elsewhere, "DEMO_HOME": str(tmp_path / "demo")}
    yield chosen
    subprocess.run(["make", "demo-down"], cwd=ROOT, env=chosen, check=True)


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line pasted into a shell, in another folder."""
    return subprocess.run(
        ["bash", "-c", command], cwd="/", capture_output=True, text=True, env={**os.environ, **environment}
    )


def pasted(text: str) -> list[str]:
    """Returns the commands that the demo prints for pasting."""
    return re.findall(r"(?m)^  (\S.*)$", text.partition("in any terminal:\n")[2].partition("To stop")[0])


class Page(NamedTuple):
    """A page of the shop."""

    status: int
    source: str
    text: str


class Visitor:
    """Uses the shop as a browser does, with cookies."""

    def __init__(self, url: str) -> None:
        self._url, self.cookies = url.rstrip("/"), dict[str, str]()

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = urllib3.request(
            method, self._url + path, body=body, headers={"Cookie": cookies, **headers}, redirect=False, retries=False
        )
        for text in response.headers.getlist("set-cookie"):
            name, _, value = text.partition(";")[0].partition("=")
            self.cookies[name] = value
        return response

    def get(self, path: str) -> Page:
        response = self.request("GET", path)
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        text = response.data.decode()
        source = re.search('id="source">(.*?)<', text)
        return Page(response.status, source[1] if source else "", text)

    def place_order(self) -> str:
        """Places an order and returns the path of its page."""
        response = self.request("POST", "/orders", "1=2&3=1&note=%3Cb%3E")
        assert response.status == 303, response.data
        return response.headers["location"]


def check_the_shop(url: str, servers: Stack) -> None:
    """Places orders while Kafka Connect runs, and while it is stopped."""
    visitor = Visitor(url)
    until(lambda: visitor.get(visitor.place_order()).source == "read model", "an order is shown at once")
    servers.halt("connect")
    try:
        path = visitor.place_order()
        number = path.rpartition("/")[2]
        first = visitor.get(path)
        assert (first.status, first.source) == (200, "nothing yet")
        assert "processing" in first.text and f"{path}?again=1" in first.text
        second = visitor.get(f"{path}?again=1")
        assert (second.status, second.source) == (200, "refreshed"), second.text
        assert "Linen Kettle" not in first.text and "Glass Shelf" in second.text and "&lt;b&gt;" in second.text
        home = visitor.get("/")
        assert home.source == "refreshed" and f"No. {number}" in home.text
        listed = visitor.get("/orders")
        assert listed.source == "write store" and f"No. {number}" in listed.text
        following = re.search('href="(/orders[?][^"]+)" rel="next"', listed.text)
        assert following
        older = visitor.get(following[1].replace("&amp;", "&"))
        assert older.text.count("<li>") == 10 and f"No. {number}" not in older.text
    finally:
        servers.launch("connect")
    until(lambda: f"No. {number}" in visitor.get("/dashboard").text, "the dashboard shows the order")
    events = urllib3.request("GET", f"{url}dashboard/events", preload_content=False)
    assert f'"order_id": {number}'.encode() in events.read1(100_000)
    events.close()
    until(lambda: visitor.get("/orders").source == "read model", "the list shows the order")
    assert visitor.request("POST", "/orders", "1=2", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert visitor.request("POST", "/orders", "1=0&x=3&2=-1").status == 400
    assert visitor.get("/orders/999999999").status == 404
    visitor.cookies |= {"customer": "2", "token": ""}
    assert visitor.get(path).status == 404, "the order is another customer's"
    visitor.cookies |= {"customer": "1", "token": "x:seven"}
    page = visitor.get(path)
    assert (page.status, page.source, visitor.cookies["token"]) == (200, "write store", '""')


@pytest.mark.long
def test_a_kept_demo_outlives_its_terminal_and_its_printed_commands_work(
    environment: dict[str, str],
) -> None:
    shown = terminal.run(["make", "demo"], cwd=ROOT, environment=environment | {"KEEP": "1"})
    assert shown.status == 0, shown.text
    assert "[y/N]" not in shown.text
    assert "Nothing differs." in shown.text
    assert re.search(r"committed → readable in Redis after \d+ ms \(customer:1:summary\)", shown.text)
    assert re.search(r"(?s)\$ syncer status.* 0\.\d s .* 0\.\d s ", shown.text)
    home = Path(environment["DEMO_HOME"])
    kept = devstack.load(home)
    assert (len(kept.running()), kept.clients["syncer"].alive()) == (5, True)
    first, *others = pasted(shown.text)
    assert first.startswith(". ") and len(others) >= 9
    for command in others:
        done = run(f"{first}\n{command}")
        assert (done.returncode, done.stderr) == (0, "") and done.stdout, f"{command}: {done}"
        assert "not_found" not in done.stdout and '"found" : false' not in done.stdout, f"{command}: {done}"
    until(lambda: "Your Name" in run(f"{first}\n{others[-1]}").stdout, "the changed name is read")
    shop = re.search(r"A web shop:  (http://\S+)", shown.text)
    assert shop and re.search(r"The syncer:  http://127\.0\.0\.1:\d+/\r?\n", shown.text)
    check_the_shop(shop[1], kept)
    again = terminal.run(["make", "demo"], cwd=ROOT, environment=environment)
    assert again.status == 2 and "To stop them: make demo-down" in again.text
    assert len(kept.running()) == 5, "a second demo stops the first"
    down = terminal.run(["make", "demo-down"], cwd=ROOT, environment=environment)
    assert (down.status, down.text.count("\n")) == (0, 1), down.text
    assert not kept.running() and not any(program.alive() for program in kept.clients.values())
    assert not home.exists() and not kept.site.data.exists()


@pytest.mark.full
@pytest.mark.parametrize("piped", [False, True], ids=["terminal", "piped"])
def test_a_demo_stops_and_deletes_everything_it_started(environment: dict[str, str], piped: bool) -> None:
    if piped:
        done = subprocess.run(["make", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        status, text = done.returncode, done.stdout
        assert "\x1b" not in text and done.stderr.count("documents")
    else:
        shown = terminal.run(["make", "demo"], cwd=ROOT, environment=environment)
        status, text = shown.status, shown.text
    assert status == 0, text
    assert "[y/N]" not in text and "Nothing differs." in text
    assert not (Path(environment["DEMO_HOME"]) / devstack.STATE).exists()
    ports = re.findall(r"ready on 127\.0\.0\.1:(\d+)", text)
    assert len(ports) == 5
    assert "pid" not in run("ss -Hltnp " + " or ".join(f"sport = :{port}" for port in ports)).stdout
