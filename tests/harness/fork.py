"""Starts a `syncer` process by fork, which takes 0.2 s of a core instead of 1 s.

Most of the time of a start is the import of modules. A run of all tests starts hundreds of processes, so they are
forks of one process that has imported the syncer (`preloaded.py`). From there on they are processes as all others:
own id, environment, folder, streams and signals. Other tests start `python -m syncer`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

_AT_START = ("PYTHON", "LD_", "MALLOC_", "TZ", "LANG", "LC_")
"""Prefixes of the variables that only the start of a program reads."""


class ForkedProcess:
    """Has the methods of `subprocess.Popen` that the tests use. Threads may share it."""

    def __init__(self, arguments: Collection[str], status: socket.socket) -> None:
        self.arguments = list(arguments)
        self.returncode: int | None = None
        self._status = status.detach()
        self.pid = int(os.read(self._status, 32))
        self._lock = threading.Lock()

    def __del__(self) -> None:
        os.close(self._status)

    def poll(self) -> int | None:
        """Returns the return code, or None while the process runs."""
        with self._lock:
            if self.returncode is None and self._readable(0):
                self.returncode = int(os.read(self._status, 32))
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the return code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        self._readable(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout or 0)
        return code

    def _readable(self, timeout: float | None) -> bool:
        """Waits for the return code, and returns whether it arrived. After the end this is always true."""
        ready = select.poll()  # `select.select` is limited to 1024 descriptors
        ready.register(self._status, select.POLLIN)
        return bool(ready.poll(None if timeout is None else timeout * 1000))

    def send_signal(self, number: int) -> None:
        """Sends a signal if the process is running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def can_fork(environment: Mapping[str, str]) -> bool:
    """Returns whether a fork can have this environment."""

    def at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if name.startswith(_AT_START)}

    return at_start(environment) == at_start(_environment())


def fork(arguments: Collection[str], environment: Mapping[str, str], log: int, folder: Path) -> ForkedProcess:
    """Starts `syncer` with these arguments. log: the descriptor of its output."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        request = json.dumps([list(arguments), dict(environment), str(folder)]).encode()
        socket.send_fds(_preloaded(), [request], [log, theirs.fileno()])
        theirs.close()
        return ForkedProcess(arguments, ours)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@cache
def _preloaded() -> socket.socket:
    """Starts the process to fork from, and returns the socket for requests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = Path(__file__).with_name("preloaded.py")
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", program, str(theirs.fileno())],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a program on a terminal would flush each line
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
