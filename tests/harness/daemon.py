"""Runs `syncer run` as a process, and waits for its states."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3

from tests.harness.process import SyncerProcess
from tests.harness.waiting import until


class Daemon(SyncerProcess):
    """A running daemon. Its log is in the given file."""

    def __init__(
        self, models: tuple[str, ...], environment: Mapping[str, str], log: Path, *, command: str = "run"
    ) -> None:
        """command: `run`, or `serve` for the HTTP server alone."""
        super().__init__((command, *models), environment, log, log.parent)
        message = "daemon started" if command == "run" else "server started"
        started = until(lambda: self.logged(message) or not self.alive, self.log.read_text)
        assert self.alive, self.log.read_text()
        self.url: str = started[0]["http"]

    def logged(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """Returns the log entries with this message and these fields."""
        wanted = {"message": message, **fields}
        entries = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in entries if wanted.items() <= entry.items()]

    def get(self, path: str, timeout: float = 5) -> tuple[int, str]:
        """Sends a GET request and returns the status and the body. timeout: seconds."""
        response = urllib3.request("GET", self.url + path, timeout=timeout, retries=False)
        return response.status, response.data.decode()

    def refresh(self, model: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """Requests a refresh and returns the status and the response."""
        url = f"{self.url}/models/{model}/refresh"
        response = urllib3.request("POST", url, json=body, timeout=60, retries=False)
        found: dict[str, Any] = response.json()
        return response.status, found

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def models(self) -> list[str]:
        return list(json.loads(self.get("/status")[1])["models"])

    def status(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"/status?model={model}")[1])
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Returns the sum of all series of a metric that have these labels. Waits for an answer of the daemon."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        text: str = until(self._metrics, self.log.read_text)
        lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(pair in line for pair in wanted))

    def _metrics(self) -> str:
        """Returns the text of `/metrics`; empty if the daemon closed the connection, as on a busy machine."""
        assert self.alive, self.log.read_text()
        try:
            status, text = self.get("/metrics")
        except urllib3.exceptions.HTTPError:
            return ""
        return text if status == 200 else ""

    def until_state(self, model: str, state: str, seconds: float = 90) -> dict[str, Any]:
        """Waits until a read model has this state. Returns its status."""
        until(lambda: self.status(model)["state"] == state, lambda: self.log.read_text(), seconds)
        return self.status(model)

    def until_reason(self, model: str, state: str, seconds: float = 90) -> str:
        """Waits until a read model has this state. Returns the reason and the hint, as `syncer status` prints them."""
        status = self.until_state(model, state, seconds)
        reason, hint = status["last_error"] if state == "failed" else status["reason"], status["hint"]
        return f"{reason}\n  → {hint}" if hint else str(reason)

    def until_ready(self, seconds: float = 90) -> None:
        until(self.ready, lambda: f"{self.get('/readyz')[1]}\n{self.log.read_text()}", seconds)

    def stop(self, expect: int = 0) -> float:
        """Sends SIGTERM and returns the seconds until the end. expect: the exit status."""
        return self.terminate((expect,))
