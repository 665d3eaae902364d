"""A client of `/models/MODEL/changes` that applies the changes, as an application does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import urllib3

from tests.harness.waiting import until


class Client:
    """Reads server-sent events on a thread, and applies them as an application does."""

    def __init__(self, url: str, model: str, last: str = "", **query: Any) -> None:
        self.documents: dict[str, Any] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.id = last
        address = f"{url}/models/{model}/changes?{urlencode(query, doseq=True)}"
        headers = {"Last-Event-ID": last} if last else {}
        self.pool = urllib3.PoolManager(retries=False, timeout=30)
        self.response = self.pool.request("GET", address, headers=headers, preload_content=False)
        assert self.response.status == 200, self.response.data
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        buffer = b""
        try:
            for part in self.response.stream(1 << 16):
                *lines, buffer = (buffer + part).split(b"\n")
                for line in lines:
                    name, _, value = line.decode().partition(": ")
                    if line:
                        fields[name] = value
                        continue
                    self._apply(fields)
                    fields = {}
        except urllib3.exceptions.HTTPError:
            return

    def _apply(self, fields: Mapping[str, str]) -> None:
        if "data" in fields:
            event, data = fields.get("event", "change"), json.loads(fields["data"])
            if event == "change" and data["op"] == "upsert":
                self.documents[data["key"]] = data.get("document")
            elif event == "change":
                self.documents.pop(data["key"], None)
            self.events.append((event, data))
        self.id = fields.get("id", self.id)

    def seen(self, event: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == event]

    def until_live(self) -> Client:
        until(lambda: self.seen("live"), lambda: str(self.events))
        return self

    def close(self) -> None:
        if self.thread.is_alive():
            self.response.shutdown()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.pool.clear()


@contextmanager
def client(url: str, model: str, last: str = "", **query: Any) -> Iterator[Client]:
    one = Client(url, model, last, **query)
    try:
        yield one.until_live()
    finally:
        one.close()
