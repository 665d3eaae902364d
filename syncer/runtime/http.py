"""What `syncer run` says about itself over HTTP, read only: /metrics /livez /readyz /status.

`/livez` fails when the process should be restarted, `/readyz` when a read model is not in working order,
both with the reason. `/status` is JSON, `/status?model=NAME` one read model of it.
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
    """What is asked; from several threads, so it has to answer from memory and at once."""

    def live(self) -> tuple[bool, str]: ...

    def ready(self) -> tuple[bool, str]: ...

    def status(self) -> dict[str, Any]:
        """Everything worth knowing, JSON values; `models` holds a mapping by read model."""
        ...


class Application:
    """The WSGI application: a visible dictionary of paths."""

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
        status, kind, body = self._answer(path, method, environ.get("QUERY_STRING", ""))
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response(f"{status.value} {status.phrase}", headers)
        return [b"" if method == "HEAD" else body]

    def _answer(self, path: str, method: str, query: str) -> tuple[HTTPStatus, str, bytes]:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"only GET and HEAD\n"
        answer = self._paths.get(path)
        if answer is None:
            known = " ".join(["/metrics", *self._paths])
            return HTTPStatus.NOT_FOUND, _TEXT, f"here are: {known}\n".encode()
        try:
            return answer(query)
        except Exception as error:  # the last resort of a thread that answers one request
            self._log.exception("a request failed", path=path, error=error)
            return HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"failed; see the log\n"

    def _probe(self, good: bool, reason: str) -> tuple[HTTPStatus, str, bytes]:
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return status, _TEXT, f"{reason or ('ok' if good else 'failed')}\n".encode()

    def _status(self, query: str) -> tuple[HTTPStatus, str, bytes]:
        status: Any = self._health.status()
        code = HTTPStatus.OK
        wanted = parse_qs(query).get("model")
        if wanted:
            models = status.get("models", {})
            if wanted[0] in models:
                status = models[wanted[0]]
            else:
                code = HTTPStatus.NOT_FOUND
                status = {"error": f"there is no read model {wanted[0]!r}", "models": list(models)}
        option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
        return code, _JSON, orjson.dumps(status, default=str, option=option)


class _Listener(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def server_bind(self) -> None:
        """As the base classes do, but without asking the name service who we are: that can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""


class _IPv6Listener(_Listener):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds that a client may take to send its request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds: not worth a line each."""


class Server:
    """Serves from daemon threads between `start` and `stop`; a context manager of both."""

    def __init__(self, host: str, port: int, health: Health, registry: CollectorRegistry) -> None:
        """port: 0 takes any free one. Raises Fatal when the address cannot be listened on."""
        where = f"http.host {host}, http.port {port}"
        try:
            self._server = (_IPv6Listener if ":" in host else _Listener)((host, port), _Handler)
        except OSError as e:
            hint = "choose another http.port, or 0 for any free one" if e.errno == errno.EADDRINUSE else ""
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
