"""Serves the state of the daemon over HTTP, read-only.

/metrics             metrics for Prometheus
/livez               fails with the reasons when the process has to be restarted
/readyz              fails with the reasons when a read model is not kept in sync
/status              the state of every read model, as JSON
/status?model=NAME   the state of one read model
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Protocol, Self, cast
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app

from syncer.errors import Fatal
from syncer.telemetry import logs

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"


class Health(Protocol):
    """Provides the state that the server serves.

    Several threads call these methods, so they have to return at once, from memory.
    """

    def live(self) -> tuple[bool, str]:
        """Returns whether the process makes progress, and the reasons if not."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Returns whether all read models are kept in sync, and the reasons if not."""
        ...

    def status(self) -> dict[str, Any]:
        """Returns the whole state as JSON values. `models` maps the name of each read model to its state."""
        ...


class Application:
    """The WSGI application: a dictionary of paths."""

    def __init__(self, health: Health, registry: CollectorRegistry) -> None:
        self._health = health
        self._metrics = make_wsgi_app(registry)
        self._log = logs.get()
        self._paths = {
            "/livez": lambda _: self._probe(*health.live()),
            "/readyz": lambda _: self._probe(*health.ready()),
            "/status": self._status,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", "/"), environ["REQUEST_METHOD"]
        if path == "/metrics" and method == "GET":
            return cast(Iterable[bytes], self._metrics(environ, start_response))
        status, content_type, body = self._respond(path, method, environ.get("QUERY_STRING", ""))
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response(f"{status.value} {status.phrase}", headers)
        return [b"" if method == "HEAD" else body]

    def _respond(self, path: str, method: str, query: str) -> tuple[HTTPStatus, str, bytes]:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"only GET and HEAD\n"
        respond = self._paths.get(path)
        if respond is None:
            known = " ".join(["/metrics", *self._paths])
            return HTTPStatus.NOT_FOUND, _TEXT, f"unknown path; known paths: {known}\n".encode()
        try:
            return respond(query)
        except Exception as error:  # the request fails, and the server goes on
            self._log.exception("HTTP request failed", path=path, error=error)
            return HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"internal error; see the log\n"

    def _probe(self, good: bool, reason: str) -> tuple[HTTPStatus, str, bytes]:
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return status, _TEXT, f"{reason or ('ok' if good else 'failed')}\n".encode()

    def _status(self, query: str) -> tuple[HTTPStatus, str, bytes]:
        status: Any = self._health.status()
        code = HTTPStatus.OK
        if names := parse_qs(query).get("model"):
            models = status.get("models", {})
            if names[0] in models:
                status = models[names[0]]
            else:
                code = HTTPStatus.NOT_FOUND
                status = {"error": f"read model {names[0]!r} does not exist", "models": list(models)}
        option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
        return code, _JSON, orjson.dumps(status, default=str, option=option)


class _Listener(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def server_bind(self) -> None:
        """Does the same as the base classes, except for a reverse DNS lookup, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the error: the client has closed its connection."""


class _IPv6Listener(_Listener):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds within which a client has to send its request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: probes come every few seconds."""


class Server:
    """Serves from daemon threads between `start` and `stop`. As a context manager it calls both."""

    def __init__(self, host: str, port: int, health: Health, registry: CollectorRegistry) -> None:
        """Binds the address. Raises Fatal if that fails.

        port: 0 for any free port.
        """
        where = f"http.host {host}, http.port {port}"
        try:
            self._server = (_IPv6Listener if ":" in host else _Listener)((host, port), _Handler)
        except OSError as e:
            hint = "choose another http.port, or 0 for any free port" if e.errno == errno.EADDRINUSE else ""
            raise Fatal("cannot listen", where=where, why=e.strerror or str(e), hint=hint) from e
        self._server.set_app(Application(health, registry))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_name, self._server.server_port
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
