"""Shows the page of a real daemon in Chromium: it updates live, survives a restart, and is readable."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from playwright.sync_api import Browser

from devstack import ports
from tests.harness.browser import Scheme, chromium, shown
from tests.harness.system import ORDERS, SUMMARIES, System
from tests.harness.waiting import until

pytestmark = [pytest.mark.full, pytest.mark.browser]
IMAGES = os.environ.get("SYNCER_SCREENSHOTS", "")
"""A folder for the pictures. They are taken after 15 minutes of writes then, so that the charts are full."""
MAX_IMAGE = 200_000  # bytes
CUSTOMERS = "INSERT INTO {schema}.customers SELECT n, 'Customer ' || n FROM generate_series(1, 200) n"
ORDER = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 200 FROM generate_series(1, 5000) n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def shop(system: System) -> System:
    """A system with readable names, a fixed port, and backfilled read models."""
    system.declare("orders", ORDERS.replace("name: {orders}", "name: orders"))
    system.declare("summaries", SUMMARIES.replace("name: {summaries}", "name: customer_summaries"))
    port = ports.choose("random", {})["connect"]
    system.environment["SYNCER_HTTP__PORT"] = str(port)
    system.execute(CUSTOMERS, ORDER)
    system.run("backfill")
    return system


@contextmanager
def writes(system: System, least: int = 5, most: int = 40) -> Iterator[None]:
    """Updates orders in the background, more and less in turn, about ten times per second."""
    stop = threading.Event()

    def run() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            wave = abs(number % 1200 - 600) / 600  # of two minutes
            rows = least + round((most - least) * wave) + number * 7 % 5
            first = number * 53 % 4900
            change = "status = status || '.'" if number % 2 else "amount = amount + 1"  # summaries show the status
            system.execute(f"UPDATE {{schema}}.orders SET {change} WHERE id BETWEEN {first} AND {first + rows}")
            if number % 900 == 450:  # a fan-out: 25 orders each
                system.execute("UPDATE {schema}.customers SET name = name || '.'")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_write_changes_numbers_without_a_reload(shop: System, browser: Browser) -> None:
    daemon = shop.start()
    with shown(browser, daemon.url) as page:
        until(lambda: page.text("#model-orders .state") == "Running", lambda: page.text("body"))
        assert page.figure("orders", "Dead letters") == "0"
        assert page.text("#summary") == "All 2 read models are kept in sync"
        until(lambda: "5,000 documents" in page.text("#model-orders .facts"))
        page.page.evaluate("window.marker = 1")
        shop.execute("UPDATE {schema}.orders SET address = 'nonsense' WHERE id = 7")
        until(lambda: page.figure("orders", "Dead letters") == "1", lambda: page.text("#model-orders"))
        assert page.text("#summary") == "Needs attention: orders"
        assert "syncer dlq list orders" in page.text("#model-orders .steps")
        with writes(shop):
            legend = page.page.locator("#model-orders [data-part=rate-legend] b")
            until(lambda: legend.first.inner_text() not in ("0", "–"))
        assert "never" in page.text("#model-customer_summaries .facts")
        shop.run("verify", "customer_summaries")
        until(lambda: "200 equal" in page.text("#model-customer_summaries .facts"))
        until(lambda: "iB of 4.0 GiB" in page.text("#source"), lambda: page.text("#source"), 30)
        assert page.page.evaluate("window.marker") == 1
        page.check_requests(daemon.url)
        assert page.errors == []
    assert "200 documents equal" in shop.run("status", "customer_summaries")


def test_the_page_survives_a_restart_of_the_daemon(shop: System, browser: Browser) -> None:
    daemon = shop.start()
    with shown(browser, daemon.url) as page:
        page.page.evaluate("window.marker = 1")
        until(lambda: f"pid {daemon.process.pid}" in page.text("#daemon"))
        daemon.stop()
        silence = page.page.locator("#silence")
        until(silence.is_visible)
        assert "The daemon does not answer since" in silence.inner_text()
        assert page.figure("orders", "Lag") != "–", "the last values stay"
        page.check_readable()
        again = shop.start()
        until(silence.is_hidden)
        until(lambda: f"pid {again.process.pid}" in page.text("#daemon"))
        assert page.page.evaluate("window.marker") == 1, "the page was not loaded again"
        assert {error for error in page.errors if "ERR_CONNECTION_REFUSED" not in error} == set()


def test_screenshots_are_readable(shop: System, browser: Browser, tmp_path: Path) -> None:
    """In the middle, Elasticsearch refuses writes for some seconds, so that the lag of `orders` has a peak."""
    folder, pause, refusal = (Path(IMAGES), 450, 25) if IMAGES else (tmp_path, 4, 3)
    folder.mkdir(parents=True, exist_ok=True)
    settings = f"{shop.stack.elasticsearch}/{shop.orders}-000001/_settings"
    daemon = shop.start()
    shop.run("verify", "--patience", "5")
    schemes: list[Scheme] = ["light", "dark"]
    with shown(browser, daemon.url) as page, writes(shop):
        page.page.wait_for_timeout(1000 * pause)
        urllib3.request("PUT", settings, json={"index.blocks.write": True})
        until(lambda: page.text("#model-orders .state") == "Waiting", lambda: page.text("#model-orders"))
        assert "cluster_block_exception" in page.text("#model-orders .reason")
        page.page.wait_for_timeout(1000 * refusal)
        urllib3.request("PUT", settings, json={"index.blocks.write": None})
        until(lambda: page.text("#model-orders .state") == "Running", lambda: page.text("#model-orders"))
        page.page.wait_for_timeout(1000 * pause)
        for width, scheme in itertools.product((400, 1400), schemes):
            page.page.set_viewport_size({"width": width, "height": 900})
            page.page.emulate_media(color_scheme=scheme)
            page.page.wait_for_timeout(500)  # the charts are drawn again
            page.check_readable()
            image = folder / f"page-{width}-{scheme}.png"
            page.page.screenshot(path=image, full_page=True)
            assert image.stat().st_size < MAX_IMAGE
