"""Runs uvicorn on a thread of its own, between `start` and `stop`."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Sequence
from typing import Self

import uvicorn

from syncer.config.schema import HttpSettings
from syncer.errors import Fatal
from syncer.serving import protocol
from syncer.serving.application import ROUTES, Capability, build
from syncer.serving.services import Services
from syncer.serving.tokens import Tokens
from syncer.serving.tools import Tools
from syncer.telemetry import logs

_BACKLOG = 128
_GRACE = 1  # seconds for open responses to end
_KEEP_ALIVE = 5  # seconds
_MAX_HEADERS = 32 << 10  # bytes


class Server:
    """Serves between `start` and `stop`. As a context manager it calls both."""

    def __init__(self, settings: HttpSettings, services: Services, capabilities: Sequence[Capability] = ROUTES) -> None:
        """Binds the address. Raises Fatal if that fails, or if the access is not configured safely.

        settings: a port of 0 means any free port.
        capabilities: the endpoints to serve.
        """
        self._tools = Tools(Tokens(settings))
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                build(settings, services, self._tools, capabilities),
                loop="asyncio",
                http=protocol.timed(settings.request_timeout),
                ws=protocol.timed_socket(settings.request_timeout),
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # a client could choose its address, and with it its limit of requests
                limit_concurrency=settings.max_connections,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE,
                h11_max_incomplete_event_size=_MAX_HEADERS,
                ws_max_size=settings.max_body,
            )
        )
        self._socket = _bind(settings.host, settings.port)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def end_long_responses(self) -> None:
        """Ends streams and waiting requests, and refuses new ones. Other requests are still answered."""
        if self._loop and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._tools.shutdown.begin)

    def stop(self) -> None:
        """Ends all responses, and waits for the thread. Returns within about two seconds."""
        self.end_long_responses()
        self._uvicorn.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_GRACE + 2)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            logs.get().exception("HTTP server has failed", error=error)
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._uvicorn.serve([self._socket])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _bind(host: str, port: int) -> socket.socket:
    """Returns a listening socket. Raises Fatal if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With a protocol of 0, asyncio does not set TCP_NODELAY, and every response takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as e:
        listener.close()
        hint = "choose another http.port, or 0 for any free port" if e.errno == errno.EADDRINUSE else ""
        where = f"http.host {host}, http.port {port}"
        raise Fatal("cannot listen", where=where, why=e.strerror or str(e), hint=hint) from e
    return listener
