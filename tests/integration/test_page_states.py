"""Shows the page with chosen states in Chromium: failures, long operations, tokens, the keyboard, the history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser

from syncer.config.schema import HttpSettings
from syncer.serving.server import Server
from syncer.serving.services import Services
from tests.harness.browser import Scheme, chromium, shown
from tests.harness.overview import ExampleOverview
from tests.harness.waiting import until
from tests.unit.serving.serving_harness import FakeHealth

pytestmark = [pytest.mark.full, pytest.mark.browser]
TOKEN = "t" * 32
_OBSERVE_SHIFTS = """() => {
  window.moved = 0;
  const add = (list) => list.getEntries().forEach((entry) => (window.moved += entry.value));
  new PerformanceObserver(add).observe({ type: "layout-shift" });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@contextmanager
def daemon(example: ExampleOverview, **settings: Any) -> Iterator[str]:
    """Yields the URL of a server with these values."""
    services = Services(FakeHealth(), example.metrics.registry, overview=example.read)
    with Server(HttpSettings(port=0, **settings), services) as server:
        yield server.url


@pytest.fixture
def example() -> ExampleOverview:
    """Every state that has its own look: failed, resync, an interrupted backfill, a lost slot, dead letters."""
    made = ExampleOverview()
    for lag in (0.2, 0.4, 31.0, 0.3):
        made.models["orders"].values |= {"lag_seconds": lag, "staleness_seconds": lag + 0.5, "watermark_reason": ""}
        made.work(50, 40)
    made.progress.values["summaries"] = {
        "generation": 3,
        "backfill": {"state": "unfinished", "documents": 9, "at": 0, "percent": 31, "seconds_left": 412.0},
        "resync": None,
        "refresh": {"why": "a table was altered", "at": 0, "items_left": 7},
        "verification": {"state": "different", "at": made.now - 90_000, "documents": 10, "differences": 3},
        "daemons": 1,
    }
    made.source.values["findings"] = [{"reason": "slot s: nothing reads it", "hint": "syncer connectors apply"}]
    made.source.values["slot"]["lost_in_seconds"] = 4000
    return made


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state_is_readable(browser: Browser, example: ExampleOverview, width: int, scheme: Scheme) -> None:
    with daemon(example) as url, shown(browser, url, width=width, scheme=scheme) as page:
        for text in ("64 %, 1 min 35 s left", "31 %, 6 min 52 s left", "syncer resync summaries", "Failed", "Resync"):
            assert text in page.text("#models")
        assert "3 of 10 differed" in page.text("#model-summaries") and "7 work items left" in page.text("#models")
        assert "in 1 h 6 min at this rate" in page.text("#source")
        assert page.text("#summary") == "Needs attention: summaries, the source"
        page.check_readable()
        page.check_requests(url)
        assert page.errors == []


def test_a_backfill_of_partials_has_its_noun(browser: Browser, example: ExampleOverview) -> None:
    backfills = example.progress.values
    backfills["orders"]["backfill"] = {"state": "done", "partials": 1234, "at": example.now}
    backfills["summaries"] |= {"backfill": {"state": "done", "documents": 1, "at": example.now}}
    backfills["summaries"]["refresh"]["items_left"] = 1
    with daemon(example) as url, shown(browser, url) as page:
        assert "1,234 partials" in page.text("#model-orders")
        assert "1 document" in page.text("#model-summaries") and "1 work item left" in page.text("#model-summaries")
        assert "1 documents" not in page.text("#model-summaries") and page.errors == []


def test_updates_move_nothing(browser: Browser, example: ExampleOverview) -> None:
    """Numbers change their width, but the layout does not depend on it."""
    with daemon(example) as url, shown(browser, url) as page:
        page.page.evaluate(_OBSERVE_SHIFTS)
        for lag, records in ((0.1, 9), (75.3, 1_234_567), (3.2, 0)):
            example.models["orders"].values |= {"lag_seconds": lag, "lag_records": records}
            example.work(5000, 40)
            until(lambda: page.figure("orders", "Records") == f"{records:,}")  # noqa: B023 – called at once
        assert page.page.evaluate("window.moved") < 0.01


def test_commands_can_be_copied_with_the_keyboard(browser: Browser, example: ExampleOverview) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with daemon(example) as url, shown(browser, url, permissions=permissions) as page:
        focused = "document.activeElement.getAttribute('aria-label')"
        for _ in range(30):
            page.page.keyboard.press("Tab")
            if page.page.evaluate(focused) == "Copy the command: syncer resync summaries":
                break
        assert page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.page.keyboard.press("Enter")
        until(lambda: page.page.evaluate("navigator.clipboard.readText()") == "syncer resync summaries")
        until(lambda: "Copied" in page.text("#model-summaries"))


def test_a_token_is_asked_for_once(browser: Browser, example: ExampleOverview) -> None:
    with daemon(example, read_token=TOKEN) as url, shown(browser, url) as page:
        assert page.page.locator("article").count() == 0
        page.page.fill("#token-value", "wrong")
        page.page.keyboard.press("Enter")
        until(lambda: page.text("#token-error") == "The daemon does not accept this token.")
        page.page.fill("#token-value", TOKEN)
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("#model-orders")
        page.page.reload()
        page.page.wait_for_selector("#model-orders")
        assert page.page.locator("#token").is_hidden()
        assert page.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert not any(TOKEN in one for one in page.requests)


def test_an_error_of_the_daemon_is_shown_until_it_ends(browser: Browser, example: ExampleOverview) -> None:
    with daemon(example) as url, shown(browser, url) as page:
        silence = page.page.locator("#silence")
        example.models["orders"].values["reason"] = None  # the daemon fails with 500
        until(silence.is_visible)
        assert "The daemon answers with status 500 since" in silence.inner_text()
        example.models["orders"].values["reason"] = ""
        until(silence.is_hidden)


def test_hostile_texts_are_shown_as_text(browser: Browser, example: ExampleOverview) -> None:
    hostile = "<img src=x onerror=alert(1)>" + "x" * 300
    example.models["orders"].values |= {"state": "waiting", "reason": hostile}
    with daemon(example) as url, shown(browser, url, width=400) as page:
        until(lambda: hostile in page.text("#model-orders .reason"))
        assert page.page.locator("#model-orders img").count() == 0
        page.check_readable()
        assert page.errors == []


def test_the_history_keeps_samples_over_a_restart_and_shows_the_gap(browser: Browser, example: ExampleOverview) -> None:
    script = """async ([answers, now]) => {
        const { History } = await import("/static/history.js");
        const history = new History();
        answers.forEach((answer) => history.add({ every: 2, kept: 900, slot: [], ...answer }, now));
        return [...history.columns("orders", ["lag", "staleness"]), history.last];
    }"""

    def columns(now: float, *answers: tuple[list[float], dict[str, list[float]]]) -> Any:
        values = [{"at": at, "models": {"orders": found}} for at, found in answers]
        return page.page.evaluate(script, [values, now])

    with daemon(example) as url, shown(browser, url) as page:
        first = ([10.0, 12.0], {"lag": [1.0, 2.0]})
        assert columns(20, first, ([14.0], {"lag": [3.0]})) == [[10, 12, 14], [1, 2, 3], [None] * 3, 14]
        assert columns(20, first, first) == [[10, 12], [1, 2], [None] * 2, 12], "a sample counts once"
        restarted = ([40.0], {"lag": [5.0], "staleness": [6.0]})
        assert columns(40, first, restarted) == [[10, 12, 14, 40], [1, 2, None, 5], [None, None, None, 6], 40]
        assert columns(911, first) == [[12], [2], [None], 12], "old samples are dropped"
        assert columns(2000, first) == [[], [], [], 0]
        assert columns(5, first, ([5.0], {"lag": [9.0]})) == [[5], [9], [None], 5], "the clock was set back"
