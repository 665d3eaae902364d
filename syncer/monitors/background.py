"""Runs a monitor in a separate thread."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class BackgroundThread(ABC):
    """A thread that runs until the monitor is stopped. It can be started once."""

    def __init__(self, name: str) -> None:
        """name: of the thread."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end. `join` waits until it has."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Returns whether the thread has ended within `timeout` seconds."""
        self._thread.join(timeout)
        return not self.alive

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @abstractmethod
    def _run(self) -> None:
        """Works until `_stop` is set."""
