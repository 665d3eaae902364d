"""Follows the changes that the daemon pushes, as server-sent events, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import orjson

from demo.screen import Failed

Document = dict[str, Any]


class Subscriber:
    """Collects the pushed documents. url: of the daemon's endpoint, with `documents=true`.

    Entering waits until the stream is live, so that no later change is missed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._changed, self._live = threading.Condition(), threading.Event()
        self._seen: list[tuple[float, str, Document]] = []
        self._latest: dict[str, Document] = {}
        self._failed = ""
        self._client = httpx.Client(timeout=httpx.Timeout(30.0))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Subscriber:
        self._thread.start()
        if not self._live.wait(30):
            raise Failed(f"{self._url} does not push: {self._failed or 'no event within 30 s'}")
        return self

    def __exit__(self, *_: object) -> None:
        """Ends with the process: a read of the stream cannot be interrupted."""

    def wait(self, key: str, reached: Callable[[Document], bool], timeout: float) -> None:
        """Waits until the latest document of a key is as expected. Raises Failed after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._latest and reached(self._latest[key]), timeout):
                raise Failed(f"The last pushed document of {key} is not the last one: {self._latest.get(key)}")

    def seen(self, key: str) -> list[tuple[float, Document]]:
        """Returns the documents of a key in the order of their arrival, with the time by the monotonic clock."""
        with self._changed:
            return [(at, document) for at, its, document in self._seen if its == key]

    def _run(self) -> None:
        event = ""
        try:
            with self._client.stream("GET", self._url) as response:
                response.raise_for_status()
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        event = value
                    elif name == "data" and event == "live":
                        self._live.set()
                    elif name == "data" and not event:
                        self._receive(orjson.loads(value))
                    elif not line:
                        event = ""
        except httpx.HTTPError as error:
            self._failed = str(error)

    def _receive(self, change: dict[str, Any]) -> None:
        if change["op"] != "upsert":
            return
        with self._changed:
            self._seen.append((time.monotonic(), change["key"], change["document"]))
            self._latest[change["key"]] = change["document"]
            self._changed.notify_all()
