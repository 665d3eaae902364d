"""A TCP proxy in front of a server that others use too: cuts, refuses and stalls only its own connections."""

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
    """Listens on a port of its own from `start` on, the same one after every outage.

    rewrite: changes what the server says, a frame at a time (Kafka's, which begin with their length).
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self.rewrite: Rewrite | None = None
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
        """Accept connections (again)."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Cut every connection and refuse new ones, as if the server had died."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            listener.close()
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Keep the connections, accept new ones, and let nothing through: a machine that hangs."""
        self._open.clear()

    def resume(self) -> None:
        """After `stall`."""
        self._open.set()

    def redirect(self, address: str) -> None:
        """To another server from now on, as after a failover."""
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
        back = threading.Thread(target=self._pump, args=(server, client, self.rewrite), daemon=True)
        back.start()
        self._pump(client, server, None)
        back.join()
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
            for one in (source, target):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


def _frames(source: socket.socket) -> Iterator[bytes]:
    reader = source.makefile("rb")
    while head := reader.read(4):
        yield head + reader.read(struct.unpack(">i", head)[0])


@contextmanager
def proxy(address: str) -> Iterator[Proxy]:
    """address: host:port of the server."""
    host, _, port = address.rpartition(":")
    made = Proxy(host, int(port))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def kafka_proxy(address: str) -> Iterator[Proxy]:
    """The broker tells its clients its address; they are told the proxy's, which is as long."""
    with proxy(address) as made:
        host, _, port = address.rpartition(":")
        told, ours = (host.encode() + struct.pack(">i", number) for number in (int(port), made.port))
        made.rewrite = lambda frame: frame.replace(told, ours)
        yield made
