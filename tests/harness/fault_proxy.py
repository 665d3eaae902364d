"""An HTTP proxy that answers instead of the server, or cuts the connection, when the server cannot be made to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple

import urllib3


class Request(NamedTuple):
    method: str
    path: str
    body: bytes


Answer = tuple[int, bytes] | Literal["cut", "cut after", "pass"]
"""A status and a body; or `cut` before the server gets the request; or `cut after` it has answered; or `pass`."""


@dataclass
class FaultProxy:
    """A running proxy. A test may change `rule` at any time. `seen` has all requests."""

    upstream: str
    url: str = ""
    rule: Callable[[Request], Answer] = lambda request: "pass"
    seen: list[Request] = field(default_factory=list)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Runs a proxy for the server at this URL."""
    proxy = FaultProxy(upstream)
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

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            request = Request(self.command, self.path, body)
            proxy.seen.append(request)
            answer = proxy.rule(request)
            if answer == "cut":
                self.close_connection = True
                return
            if isinstance(answer, str):
                kept = {"content-type", "accept"}
                headers = {name: value for name, value in self.headers.items() if name.lower() in kept}
                try:
                    url = proxy.upstream + self.path
                    got = pool.request(self.command, url, body=body, headers=headers)
                except urllib3.exceptions.HTTPError:  # the server is unreachable, so the proxy is too
                    got = None
                if answer == "cut after" or got is None:
                    self.close_connection = True
                    return
                answer = (got.status, got.data)
            self.send_response(answer[0])
            self.send_header("content-type", "application/json")
            self.send_header("x-elastic-product", "Elasticsearch")
            self.send_header("content-length", str(len(answer[1])))
            with contextlib.suppress(ConnectionError):  # the client has closed the connection
                self.end_headers()
                self.wfile.write(answer[1])

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
