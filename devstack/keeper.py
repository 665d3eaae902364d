"""Stops and deletes an ephemeral stack when the process that started it is gone, even if it was killed.

python -m devstack.keeper HOME PID
"""

import os
import select
import subprocess
import sys
from pathlib import Path

from devstack import stack

ROOT = Path(__file__).parent.parent


def start(home: Path) -> None:
    """Have a process of its own wait for the end of this one."""
    command = [sys.executable, "-m", "devstack.keeper", str(home), str(os.getpid())]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL)
    child.returncode = 0  # it outlives us: no ResourceWarning


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
