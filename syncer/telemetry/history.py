"""Keeps the last minutes of some values in memory, for the page and `syncer top`.

It is no replacement for Prometheus: it holds 15 minutes, and a restart of the daemon empties it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

KEPT = 900.0
"""Seconds for which a sample is kept."""

Columns = dict[str, list[float | None]]


class History:
    """Holds samples of named values, bounded by their age. Any thread may call any method.

    kept: the age in seconds at which a sample is dropped.
    """

    def __init__(self, kept: float = KEPT) -> None:
        self._kept = kept
        self._samples: deque[tuple[float, Mapping[str, float | None]]] = deque()
        self._lock = threading.Lock()

    def add(self, at: float, values: Mapping[str, float | None]) -> None:
        """Adds one sample, and drops the samples that are too old.

        at: seconds since the Unix epoch. A sample that is not later than the last one is ignored, so that the times
        increase although a clock may be set back.
        values: by name; None for a value that is not known.
        """
        with self._lock:
            if self._samples and at <= self._samples[-1][0]:
                if self._samples[-1][0] - at < self._kept:
                    return
                self._samples.clear()  # the clock was set back by more than the whole history
            self._samples.append((at, dict(values)))
            while self._samples[0][0] < at - self._kept:
                self._samples.popleft()

    def columns(self, since: float = 0.0) -> tuple[list[float], Columns]:
        """Returns the times, and for each name a list of the same length. None where a sample has no such value.

        since: only samples after this time, in seconds since the Unix epoch.
        """
        with self._lock:
            samples = [sample for sample in self._samples if sample[0] > since]
        names = dict.fromkeys(name for _, values in samples for name in values)
        return [at for at, _ in samples], {name: [values.get(name) for _, values in samples] for name in names}
