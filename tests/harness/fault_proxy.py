"""An HTTP proxy that answers instead of the server, or cuts the connection, when the server cannot be made to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple

import urllib3


class Request(NamedTuple):
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    """With names in lower case."""


_KEPT = frozenset(("content-type", "accept"))
_ELASTICSEARCH = {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}
_OWN = frozenset(("connection", "content-length", "date", "server", "transfer-encoding"))
"""Headers of an answer that the proxy writes itself."""
Answer = tuple[int, bytes] | Literal["cut", "cut after", "pass"]
"""A status and a body; or `cut` before the server gets the request; or `cut after` it has answered; or `pass`."""


@dataclass
class FaultProxy:
    """A running proxy. A test may change `rule` at any time. `seen` has all requests.

    elasticsearch: whether answers look like those of Elasticsearch. Otherwise, all headers are forwarded unchanged.
    """

    upstream: str
    url: str = ""
    elasticsearch: bool = True
    rule: Callable[[Request], Answer] = lambda request: "pass"
    answered: Callable[[Request], None] = lambda request: None
    """Called after the server has answered a request, and before the client gets the answer."""
    seen: list[Request] = field(default_factory=list)


@contextmanager
def fault_proxy(upstream: str, *, elasticsearch: bool = True) -> Iterator[FaultProxy]:
    """Runs a proxy for the server at this URL."""
    proxy = FaultProxy(upstream, elasticsearch=elasticsearch)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    pool = urllib3.PoolManager(maxsize=32, timeout=60.0, retries=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise an answer with a body takes 40 ms

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client was killed
                super().handle()

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            given = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, body, given)
            proxy.seen.append(request)
            answer = proxy.rule(request)
            if answer == "cut":
                self.close_connection = True
                return
            more: Mapping[str, str] = _ELASTICSEARCH
            length = ""
            if isinstance(answer, str):
                headers = {name: value for name, value in given.items() if name in _KEPT or not proxy.elasticsearch}
                try:
                    url = proxy.upstream + self.path
                    got = pool.request(self.command, url, body=body, headers=headers, decode_content=False)
                except urllib3.exceptions.HTTPError:  # the server is unreachable, so the proxy is too
                    got = None
                if got is not None:
                    proxy.answered(request)
                if answer == "cut after" or got is None:
                    self.close_connection = True
                    return
                answer = (got.status, got.data)
                if self.command == "HEAD":
                    length = got.headers.get("content-length", "")
                if not proxy.elasticsearch:
                    more = {name: value for name, value in got.headers.items() if name.lower() not in _OWN}
            self.send_response(answer[0])
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", length or str(len(answer[1])))
            with contextlib.suppress(ConnectionError):  # the client has closed the connection
                self.end_headers()
                self.wfile.write(answer[1])

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
