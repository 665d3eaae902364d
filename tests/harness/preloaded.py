"""Forks `syncer` processes from a process that has already imported the syncer.

Runs as a program, without the tests' own modules: `python -P preloaded.py DESCRIPTOR`. `fork.py` starts it and sends
requests to the socket with this descriptor. When the socket is closed, the program kills its forks and ends. So no
daemon outlives its tests, however they end.

A request is [arguments, environment, folder] in JSON. With it come the descriptors of the log and of a socket. The
socket gets the id of the new process, and its return code when it ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from typing import Any

MODULES = (
    *(f"syncer.cli.{command}" for command in ("backfill", "export", "resync", "run", "serve", "status", "verify")),
    *(f"syncer.sinks.{sink}.sink" for sink in ("elasticsearch", "kafka", "postgres", "redis")),
)


def serve(control: socket.socket) -> list[str]:
    """Forks a process for each request. Returns only in these processes, with their arguments."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        running: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of the process
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    pid, status = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with status:
                        report(status, code)
                    continue
                request, received, _, _ = socket.recv_fds(control, 1 << 20, 2)
                if not request:
                    for pid, _ in running.values():
                        os.kill(pid, signal.SIGKILL)  # an interrupted test did not end it
                    os._exit(0)
                log, status = received[0], socket.socket(fileno=received[1])
                if not (pid := os.fork()):
                    for descriptor, (_, other) in running.items():
                        os.close(descriptor)
                        other.close()
                    status.close()
                    arguments, environment, folder = json.loads(request)
                    return prepare(arguments, environment, folder, log)
                os.close(log)
                report(status, pid)
                ended = os.pidfd_open(pid)
                running[ended] = (pid, status)
                selector.register(ended, selectors.EVENT_READ)


def report(status: socket.socket, number: int) -> None:
    """Sends a number. The test may have ended already."""
    try:
        status.send(str(number).encode(), socket.MSG_NOSIGNAL)
    except OSError:
        return


def prepare(arguments: list[str], environment: dict[str, str], folder: str, log: int) -> list[str]:
    """Gives the new process its environment, folder and streams. Returns the arguments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, folder)  # as `python -m` does
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    return arguments


def main() -> None:
    """Imports the syncer and serves requests. Runs the command in each new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal; the tests end this process
    missing: Any = None
    sys.modules["pyarrow"] = missing  # Elasticsearch's client imports it, only to convert its types; it has threads
    for module in MODULES:
        importlib.import_module(module)
    del sys.modules["pyarrow"]
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        sys.exit("an import has started a thread, which a fork would not copy")
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the memory
    with socket.socket(fileno=int(sys.argv[1])) as control:
        arguments = serve(control)
    sys.argv = ["syncer", *arguments]
    runpy.run_module("syncer", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
