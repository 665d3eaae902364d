"""Freezes a server of the stack by SIGSTOP: it keeps its connections, and answers nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import devstack
from devstack.process import descendants


@contextmanager
def frozen(stack: devstack.Stack, server: str) -> Iterator[None]:
    """Freezes the processes of a server. They continue at the end of the block."""
    first = stack.pid(server)
    pids = [first, *descendants(first)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
