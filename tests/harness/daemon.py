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

    def __init__(self, models: tuple[str, ...], environment: Mapping[str, str], log: Path) -> None:
        super().__init__(("run", *models), environment, log, log.parent)
        started = until(lambda: self.logged("daemon started") or not self.alive, self.log.read_text)
        assert self.alive, self.log.read_text()
        self.url: str = started[0]["http"]

    def logged(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """Returns the log entries with this message and these fields."""
        wanted = {"message": message, **fields}
        entries = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in entries if wanted.items() <= entry.items()]

    def get(self, path: str) -> tuple[int, str]:
        """Sends a GET request and returns the status and the body."""
        response = urllib3.request("GET", self.url + path, timeout=5, retries=False)
        return response.status, response.data.decode()

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def models(self) -> list[str]:
        return list(json.loads(self.get("/status")[1])["models"])

    def status(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"/status?model={model}")[1])
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Returns the sum of all series of a metric that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(pair in line for pair in wanted))

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
