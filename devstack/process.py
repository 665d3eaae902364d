"""Server processes: start one as another user, tell whether it lives, signal it, read the end of its log.

A process is known by its id and its start time together: ids are used again, and a stranger must never be
signalled.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import DevstackError
from devstack.system import Account

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """A process that we started. `started` is its start time as /proc tells it, with the boot it was in."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        _reap(self.pid)
        return start_time(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Signal it, if it lives."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self, seconds: float = 60) -> None:
        """SIGKILL, also for everything below it, as it could not pass that on; wait until all are gone.

        Raises DevstackError if one of them is still there after so many seconds: its ports are, too.
        """
        if not self.alive():
            return
        family = [self, *(Process(pid, start_time(pid) or "") for pid in descendants(self.pid))]
        for one in family:
            one.signal(signal.SIGKILL)
        for one in family:
            if not one.wait_gone(seconds):
                raise DevstackError(f"process {one.pid} is still there {seconds:g} s after SIGKILL")

    def wait_gone(self, seconds: float) -> bool:
        """Wait for its end; False if it still lives after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def spawn(command: Sequence[str | Path], *, account: Account, env: Mapping[str, str], cwd: Path, log: Path) -> Process:
    """Start a server in a session of its own, its output appended to `log`, with only this environment."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )
    child.returncode = 0  # it is meant to outlive this object: no ResourceWarning when it is collected
    return Process(child.pid, start_time(child.pid) or "")


def run(command: Sequence[str | Path], *, account: Account, env: Mapping[str, str], cwd: Path) -> str:
    """Run a set-up command to its end and return what it printed.

    Raises DevstackError with its last lines if it fails.
    """
    done = subprocess.run(
        command,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        user=account.user,
        group=account.group,
        extra_groups=account.extra_groups,
    )
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()[-30:]
        failure = f"{Path(command[0]).name} failed with status {done.returncode}"
        raise DevstackError("\n  ".join([failure, *said]))
    return done.stdout


def start_time(pid: int) -> str | None:
    """When a process started, as text that no other process shares; None if it is gone or a zombie."""
    fields = _stat(pid)
    if not fields or (fields[0] == "Z" and not _other_threads(pid)):
        return None
    return f"{BOOT_ID.read_text().strip()}/{fields[19]}"


def _other_threads(pid: int) -> bool:
    """Whether a process whose first thread has ended has others, which still hold its ports: those of a JVM
    can take seconds to end."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    below: list[int] = []
    layer = [pid]
    while layer := [child for child, parent in parents.items() if parent in layer]:
        below += layer
    return below


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log."""
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on; the second is the name and may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # it is another process's child
        os.waitpid(pid, os.WNOHANG)
