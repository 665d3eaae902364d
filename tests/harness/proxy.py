"""Runs a TCP proxy in front of a shared server. It cuts, refuses and stalls only its own connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Rewrite = Callable[[bytes], bytes]
_CHUNK = 1 << 16


class Proxy:
    """Forwards connections from its own port, which stays the same after every outage.

    rewrite: changes each frame that the server sends. Frames begin with their length, as in the protocol of Kafka.
    request: changes each frame that a client sends, and may delay it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self.rewrite: Rewrite | None = None
        self.request: Rewrite | None = None
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self.up()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def up(self) -> None:
        """Accepts connections, also after `down`."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Cuts every connection and refuses new ones, as if the server had crashed."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            listener.close()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Accepts connections but forwards no data, as if the server hangs."""
        self._open.clear()

    def resume(self) -> None:
        """Forwards data again after `stall`."""
        self._open.set()

    def redirect(self, address: str) -> None:
        """Forwards new connections to another server, as after a failover."""
        self.down()
        host, _, port = address.rpartition(":")
        self._upstream = host, int(port)
        self.up()

    def close(self) -> None:
        self.resume()
        self.down()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._upstream)
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
        responses = threading.Thread(target=self._pump, args=(server, client, self.rewrite), daemon=True)
        responses.start()
        self._pump(client, server, self.request)
        responses.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket, rewrite: Rewrite | None) -> None:
        try:
            for part in _frames(source) if rewrite else iter(lambda: source.recv(_CHUNK), b""):
                self._open.wait()
                target.sendall(rewrite(part) if rewrite else part)
        except OSError:
            pass
        finally:
            for connection in (source, target):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _frames(source: socket.socket) -> Iterator[bytes]:
    reader = source.makefile("rb")
    while head := reader.read(4):
        yield head + reader.read(struct.unpack(">i", head)[0])


@contextmanager
def proxy(address: str) -> Iterator[Proxy]:
    """Yields a proxy in front of a server. address: host:port of the server."""
    host, _, port = address.rpartition(":")
    link = Proxy(host, int(port))
    try:
        yield link
    finally:
        link.close()


@contextmanager
def kafka_proxy(address: str) -> Iterator[Proxy]:
    """Yields a proxy in front of a broker.

    The broker sends its own address to its clients. The proxy replaces it with its address, which has the same length.
    """
    with proxy(address) as link:
        host, _, port = address.rpartition(":")
        broker_address, proxy_address = (host.encode() + struct.pack(">i", number) for number in (int(port), link.port))
        link.rewrite = lambda frame: frame.replace(broker_address, proxy_address)
        yield link
