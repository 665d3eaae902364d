"""The `syncer run` command as a process, and how tests wait: by condition."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import urllib3

from tests.harness.waiting import until

STOPS_WITHIN = 10.0


class Daemon:
    """A `syncer run` process; what it says goes to a file."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "syncer", "run", *arguments]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started = until(lambda: self.logged("daemon started") or not self.alive, self.log.read_text)
        assert self.alive, self.log.read_text()
        self.url: str = started[0]["http"]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def logged(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """The entries of its log with this message and these fields."""
        wanted = {"message": message, **fields}
        entries = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in entries if wanted.items() <= entry.items()]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        answer = urllib3.request("GET", self.url + path, timeout=5, retries=False)
        return answer.status, answer.data.decode()

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def models(self) -> list[str]:
        return list(json.loads(self.get("/status")[1])["models"])

    def status(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"/status?model={model}")[1])
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(pair in line for pair in wanted))

    def until_state(self, model: str, state: str, seconds: float = 90) -> dict[str, Any]:
        """Wait for it; returns the model's status."""
        until(lambda: self.status(model)["state"] == state, lambda: self.log.read_text(), seconds)
        return self.status(model)

    def until_reason(self, model: str, state: str, seconds: float = 90) -> str:
        """Wait for a state; returns why, with the hint, as people read it."""
        told = self.until_state(model, state, seconds)
        reason, hint = told["last_error"] if state == "failed" else told["reason"], told["hint"]
        return f"{reason}\n  → {hint}" if hint else str(reason)

    def until_ready(self, seconds: float = 90) -> None:
        until(self.ready, lambda: f"{self.get('/readyz')[1]}\n{self.log.read_text()}", seconds)

    def stop(self, expect: int = 0) -> float:
        """SIGTERM; returns the seconds it took, which have to be few. expect: its exit status."""
        began = time.monotonic()
        self.process.terminate()
        try:
            assert self.process.wait(STOPS_WITHIN) == expect, self.log.read_text()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not gone {STOPS_WITHIN} s after SIGTERM:\n{self.log.read_text()}") from None
        return time.monotonic() - began

    def kill(self) -> None:
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
