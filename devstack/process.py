"""Starts server processes as another user, checks whether they are alive, signals them and reads their logs.

A process is identified by its id together with its start time. The kernel reuses ids, and devstack must never
signal an unrelated process.
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
    """Identifies a process. `started` combines the id of the boot and the start time from /proc."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Returns whether exactly this process is alive. A zombie is not.

        Reaps a zombie that is a child of this process. PostgreSQL, for example, does not start while the id in its
        lock file exists, even as a zombie.
        """
        if start_time(self.pid) == self.started:
            return True
        # A process can end at any moment. Therefore reap it only after it was seen as a zombie.
        if (fields := _stat(self.pid)) and _identity(fields) == self.started:
            with contextlib.suppress(ChildProcessError):  # the child of another process
                os.waitpid(self.pid, os.WNOHANG)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal if the process is alive."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self, seconds: float = 180) -> None:
        """Sends SIGKILL to the process and all its descendants, and waits for their end.

        Descendants get the signal too, because a killed parent cannot forward it.
        seconds: timeout per process. Raises DevstackError if a process survives it, because its ports are still in use.
        """
        if not self.alive():
            return
        family = [self, *map(identified, descendants(self.pid))]
        for one in family:
            one.signal(signal.SIGKILL)
        for one in family:
            if not one.wait_gone(seconds):
                raise DevstackError(f"process {one.pid} is still alive {seconds:g} s after SIGKILL")

    def wait_gone(self, seconds: float) -> bool:
        """Waits for the end of the process. Returns False if it is still alive after the given number of seconds."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def spawn(command: Sequence[str | Path], *, account: Account, env: Mapping[str, str], cwd: Path, log: Path) -> Process:
    """Starts a server in its own session, with exactly this environment. Appends its output to `log`."""
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
    child.returncode = 0  # The server outlives this object. Without a return code, Popen would emit a ResourceWarning.
    return identified(child.pid)


def identified(pid: int) -> Process:
    """Returns the process that has this id now, or a process that is never alive. A zombie is identified, too.

    A new process can end before its start time is read. `alive` must still reap it.
    """
    fields = _stat(pid)
    return Process(pid, _identity(fields) if fields else "")


def run(command: Sequence[str | Path], *, account: Account, env: Mapping[str, str], cwd: Path) -> str:
    """Runs a set-up command and returns its standard output.

    Raises DevstackError with the last lines of its output if it fails.
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
        output = (done.stderr + done.stdout).strip().splitlines()[-30:]
        failure = f"{Path(command[0]).name} failed with status {done.returncode}"
        raise DevstackError("\n  ".join([failure, *output]))
    return done.stdout


def start_time(pid: int) -> str | None:
    """Returns a text that identifies the start of a process. Returns None if the process has ended or is a zombie."""
    fields = _stat(pid)
    if not fields or (fields[0] == "Z" and not _other_threads(pid)):
        return None
    return _identity(fields)


def _identity(fields: list[str]) -> str:
    return f"{BOOT_ID.read_text().strip()}/{fields[19]}"


def _other_threads(pid: int) -> bool:
    """Returns whether a process still has threads after its first thread has ended.

    They still hold its ports. The threads of a JVM can take seconds to end.
    """
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Returns the ids of all descendants of a process."""
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
    """Returns the last lines of a log file."""
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _stat(pid: int) -> list[str] | None:
    """Returns the fields of /proc/PID/stat from the third (state) on. The second is the name, which may have spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
