"""Breaks the connection of a session that does not answer in time.

`statement_timeout` does not apply to a commit that waits for a synchronous standby. A cancel request would end this
wait, but PostgreSQL then reports the commit as successful. So the client closes the connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

GRACE = 5.0
"""Seconds that a session may take in addition to its timeout."""


class _Watch:
    def __init__(self, session: psycopg.Connection[object]) -> None:
        self._session, self._lock, self._over = session, threading.Lock(), False

    def end(self) -> None:
        with self._lock:
            self._over = True

    def shut_down(self) -> None:
        """Shuts down the socket. The thread that waits for it gets an error, and closes the session."""
        with self._lock, contextlib.suppress(psycopg.Error, OSError):
            if not self._over:
                with socket.socket(fileno=os.dup(self._session.fileno())) as duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)


@contextmanager
def deadline(session: psycopg.Connection[object], timeout: float) -> Iterator[None]:
    """Breaks the connection if the block takes `GRACE` seconds longer than `timeout`."""
    watch = _Watch(session)
    timer = threading.Timer(timeout + GRACE, watch.shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        watch.end()
        timer.cancel()
