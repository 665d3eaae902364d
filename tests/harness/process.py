"""Runs a `syncer` command as an operating system process, with its output in a log file."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from tests.harness.fork import ForkedProcess, can_fork, fork

STOP_TIMEOUT = 10.0
"""Seconds in which every command must end after SIGTERM."""


class SyncerProcess:
    """A running `syncer` command. `name` is the name of its log file."""

    def __init__(self, arguments: Collection[str], environment: Mapping[str, str], log: Path, folder: Path) -> None:
        self.name, self.log = log.stem, log
        self.process: ForkedProcess | subprocess.Popen[bytes]
        with log.open("wb") as output:
            if can_fork(environment):
                self.process = fork(arguments, environment, output.fileno(), folder)
                return
            self.process = subprocess.Popen(
                [sys.executable, "-m", "syncer", *arguments],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def freeze(self, seconds: float) -> None:
        """Suspends the process by SIGSTOP for the given number of seconds, then lets it continue."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self.process.send_signal(signal.SIGCONT)

    def terminate(self, expect: Collection[int]) -> float:
        """Sends SIGTERM and waits for the end. Returns the seconds that it took.

        expect: the allowed exit statuses.
        Raises AssertionError for another exit status, and if the process does not end within `STOP_TIMEOUT`.
        """
        began = time.monotonic()
        self.process.terminate()
        try:
            status = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            text = self.log.read_text(errors="replace")
            raise AssertionError(f"{self.name} was still running {STOP_TIMEOUT} s after SIGTERM:\n{text}") from None
        assert status in expect, f"{self.name} ended with {status}:\n{self.log.read_text(errors='replace')}"
        return time.monotonic() - began

    def tail(self) -> str:
        """Returns the last lines of the log."""
        return "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-30:])
