"""Shows the page in Chromium, and checks what a person would see: overflow, contrast, requests, errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from devstack import DevstackError, system

Scheme = Literal["light", "dark"]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the page must work without any other server
]
LEAST_CONTRAST = 4.5
"""WCAG 2.2, level AA, for text of normal size."""

_CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const said = walker.currentNode.textContent.trim();
    if (!said || !element.checkVisibility() || element.closest("script, template, noscript")) continue;
    const below = back(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), below)), light(below)].sort((x, y) => y - x);
    found.push([said.slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""
_OUTSIDE = """() => [...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && !one.closest(".u-wrap") && one.getBoundingClientRect().width)
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5 || one.getBoundingClientRect().left < -0.5)
  .map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`)"""


@dataclass
class Shown:
    """A page in a browser, with everything that it has requested and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """Returns the text of the first element as it is shown."""
        return self.page.locator(selector).first.inner_text()

    def figure(self, model: str, name: str) -> str:
        """Returns one of the large numbers of a read model, such as `Lag`."""
        pair = self.page.locator(f"#model-{model} .figures div", has_text=name)
        return pair.locator("dd").first.inner_text()

    def check_readable(self) -> None:
        """Fails if something is outside of the window, or if a text has too little contrast."""
        width = self.page.evaluate("document.documentElement.scrollWidth")
        assert width <= self.page.evaluate("innerWidth"), "the page scrolls sideways"
        assert self.page.evaluate(_OUTSIDE) == []
        texts: list[tuple[str, float]] = self.page.evaluate(_CONTRAST)
        assert len(texts) > 20
        assert [(text, round(ratio, 2)) for text, ratio in texts if ratio < LEAST_CONTRAST] == []

    def check_requests(self, url: str) -> None:
        """Fails if the page has sent a request to another server."""
        assert {urlsplit(one)[:2] for one in self.requests} == {urlsplit(url)[:2]}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yields Debian's Chromium. Installs it if it is missing. Skips the test if that is not possible."""
    try:
        system.ensure_packages("chromium")
    except DevstackError as error:
        pytest.skip(f"Chromium cannot be installed: {error}")
    with sync_playwright() as playwright, _launched(playwright) as browser:
        yield browser


@contextmanager
def _launched(playwright: Playwright) -> Iterator[Browser]:
    path: Path | None = system.chromium()
    browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def shown(
    browser: Browser, url: str, *, width: int = 1400, scheme: Scheme = "light", **options: Any
) -> Iterator[Shown]:
    """Opens a URL in a new profile, and waits until the first charts are drawn or a token is asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    found = Shown(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("console", lambda message: found.errors.append(message.text) if message.type == "error" else None)
    try:
        found.page.goto(url)
        found.page.wait_for_selector("article .u-over, #token:not([hidden])")
        yield found
    finally:
        context.close()
