"""Reads CPU times and memory of processes and of the machine from /proc."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_QUIET = 0.15
"""The machine is idle if the busy share of all cores is below this."""


def cpu_seconds(pid: int) -> float:
    """Returns the user and system CPU time of all threads of a process. See proc(5), `stat`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


class Moment:
    """Holds the CPU time (seconds) of every process and of the machine, up to now."""

    def __init__(self) -> None:
        self._parents, self._own = dict[int, int](), dict[int, float]()
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # the process has just ended
                continue
            pid = int(path.parent.name)
            self._parents[pid] = int(fields[1])
            self._own[pid] = sum(map(int, fields[11:15])) * _TICK  # includes its ended children
        jiffies = _jiffies()
        self.machine = (sum(jiffies) - jiffies[3] - jiffies[4]) * _TICK

    def family(self, pid: int) -> set[int]:
        """Returns the ids of a process and all its descendants."""
        found = {pid}
        while more := {pid for pid, parent in self._parents.items() if parent in found} - found:
            found |= more
        return found

    def cpu(self, pids: Iterable[int]) -> float:
        return sum(self._own.get(pid, 0.0) for pid in pids)


def peak_bytes(pid: int) -> int:
    """Returns the peak resident memory of a process since its start or `reset_peak`. See proc(5), `VmHWM`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # the process has ended and is a zombie


def reset_peak(pid: int) -> None:
    """Resets the peak memory of a process. See proc(5), `clear_refs`."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cores() -> int:
    """Returns the number of cores that this process, and the servers that it starts, may use."""
    return len(os.sched_getaffinity(0))


def busy(seconds: float) -> float:
    """Measures the busy share of all cores during the given number of seconds."""
    before = _jiffies()
    time.sleep(seconds)
    after = _jiffies()
    total = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4]
    return 1 - idle / total if total else 0.0


def settle(patience: float) -> bool:
    """Waits until the machine is idle, at most `patience` seconds. Returns whether it is idle."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if busy(0.5) < _QUIET:
            return True
    return False


def describe() -> dict[str, str]:
    """Describes the machine, for the report."""
    cpu = _first("/proc/cpuinfo", "model name") or platform.machine()
    memory = int((_first("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20
    return {
        "cores": str(cores()),
        "processor": cpu,
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
    }


def _jiffies() -> list[int]:
    return [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def _first(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
