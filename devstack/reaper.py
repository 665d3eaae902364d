"""Removes an ephemeral stack after the process that started it has ended, even by SIGKILL.

`Stack.keep` stops the reaper, so that the stack outlives that process.

python -m devstack.reaper HOME PID
"""

import os
import select
import subprocess
import sys
from pathlib import Path

from devstack import stack
from devstack.process import Process, identified

ROOT = Path(__file__).parent.parent


def start(home: Path) -> Process:
    """Starts a reaper process that waits for the end of the current process."""
    command = [sys.executable, "-m", "devstack.reaper", str(home), str(os.getpid())]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL)
    child.returncode = 0  # It outlives this process. Without a return code, Popen would emit a ResourceWarning.
    return identified(child.pid)


def wait_for_end(pid: int) -> None:
    """Blocks until a process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [])
    finally:
        os.close(handle)


def main(home: Path, pid: int) -> None:
    """Waits for the end of a process, then stops and deletes the stack in `home`."""
    wait_for_end(pid)
    if (home / stack.STATE).exists():
        stack.load(home).remove()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
