"""What Linux tells of processes and of the machine: /proc, and nothing of ours."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_QUIET = 0.15
"""The busy share of all cores below which the machine counts as quiet."""


def cpu_seconds(pid: int) -> float:
    """Time that all threads of a process have spent on cores, user and system. proc(5), `stat`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


class Moment:
    """The time on cores (seconds) that every process and the whole machine have spent up to now."""

    def __init__(self) -> None:
        self._parents, self._own = dict[int, int](), dict[int, float]()
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            pid = int(path.parent.name)
            self._parents[pid] = int(fields[1])
            self._own[pid] = sum(map(int, fields[11:15])) * _TICK  # with its ended children
        jiffies = _jiffies()
        self.machine = (sum(jiffies) - jiffies[3] - jiffies[4]) * _TICK

    def family(self, pid: int) -> set[int]:
        """The process and all below it."""
        found = {pid}
        while more := {pid for pid, parent in self._parents.items() if parent in found} - found:
            found |= more
        return found

    def cpu(self, pids: Iterable[int]) -> float:
        return sum(self._own.get(pid, 0.0) for pid in pids)


def peak_bytes(pid: int) -> int:
    """The most memory that the process has had at once since its start or `reset_peak`. proc(5), `VmHWM`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # a process that has ended and was not waited for


def reset_peak(pid: int) -> None:
    """proc(5), `clear_refs`."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cores() -> int:
    """Those that this process may use; the servers, which it starts, may use the same."""
    return len(os.sched_getaffinity(0))


def busy(seconds: float) -> float:
    """The share of all cores that was in use within so many seconds from now."""
    before = _jiffies()
    time.sleep(seconds)
    after = _jiffies()
    total = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4]
    return 1 - idle / total if total else 0.0


def settle(patience: float) -> bool:
    """Wait until the machine is quiet, at most so many seconds. Whether it is."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if busy(0.5) < _QUIET:
            return True
    return False


def describe() -> dict[str, str]:
    """The machine, for the report."""
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
