"""Receives pushed changes with many connections, as `bench/push.py` asks. It is independent of the syncer.

The first JSON line of standard input has the sampled keys, and the keys of each client (none: all changes). The program
prints `{"connected": …}` when every client is live. The second line has the number of arrivals of sampled keys to wait
for. Then the program prints when each of them arrived, as monotonic seconds, and how many changes arrived in all.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
import orjson

_KEY = re.compile(rb'"key":"(\d+)"')
_PATIENCE = 60.0
"""Seconds to wait for changes that are still on their way, after the last one was written."""
_AT_ONCE = 50
"""Clients that connect at the same time."""


class Client(asyncio.Protocol):
    """One connection. Notes the time of each sampled key."""

    def __init__(self, request: bytes, sample: dict[bytes, list[float]]) -> None:
        self.live = asyncio.get_running_loop().create_future()
        self.received = 0
        self._request, self._sample, self._rest = request, sample, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        complete, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        for key in _KEY.findall(complete):
            self.received += 1
            if key in self._sample:
                self._sample[key].append(now)
        if not self.live.done() and b"event: live" in complete:
            self.live.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.live.done():
            self.live.set_exception(ConnectionError(f"not live: {self._rest[:500]!r}"))


async def _run(url: str, sample: dict[bytes, list[float]], keys: list[list[str]]) -> None:
    at, loop = urlsplit(url), asyncio.get_running_loop()
    assert at.hostname and at.port
    clients: list[Client] = []
    for start in range(0, len(keys), _AT_ONCE):
        some = []
        for wanted in keys[start : start + _AT_ONCE]:
            query = urlencode({"key": wanted}, doseq=True)
            request = f"GET {at.path}?{query} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode()
            _, client = await loop.create_connection(lambda r=request: Client(r, sample), at.hostname, at.port)  # type: ignore[misc]
            some.append(client)
        await asyncio.gather(*(client.live for client in some))
        clients += some
    _print({"connected": len(clients)})
    expected = orjson.loads(await loop.run_in_executor(None, sys.stdin.readline) or b'{"arrivals":0}')["arrivals"]
    end = loop.time() + _PATIENCE
    while sum(map(len, sample.values())) < expected and loop.time() < end:
        await asyncio.sleep(0.1)
    arrived = {key.decode(): times for key, times in sample.items()}
    _print({"arrived": arrived, "received": sum(client.received for client in clients)})


@click.command()
@click.option("--url", required=True)
def main(url: str) -> None:
    """Receive changes until all that standard input names have arrived."""
    given: dict[str, Any] = orjson.loads(sys.stdin.readline())
    asyncio.run(_run(url, {key.encode(): [] for key in given["sample"]}, given["keys"]))


def _print(record: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
