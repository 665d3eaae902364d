"""Stops and deletes an ephemeral stack when the process that started it has ended, even if it was killed.

`Stack.keep` ends the keeper instead, and with it the bond between the stack and that process.

python -m devstack.keeper HOME PID
"""

import os
import select
import subprocess
import sys
from pathlib import Path

from devstack import stack
from devstack.process import Process, start_time

ROOT = Path(__file__).parent.parent


def start(home: Path) -> Process:
    """Start a process that waits for the end of this one."""
    command = [sys.executable, "-m", "devstack.keeper", str(home), str(os.getpid())]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL)
    child.returncode = 0  # it outlives us: no ResourceWarning
    return Process(child.pid, start_time(child.pid) or "")


def wait_for_end(pid: int) -> None:
    """Block until a process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [])
    finally:
        os.close(handle)


def main(home: Path, pid: int) -> None:
    """Wait, then stop what still runs and delete what is left."""
    wait_for_end(pid)
    if (home / stack.STATE).exists():
        stack.load(home).remove()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
