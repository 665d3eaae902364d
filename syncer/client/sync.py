"""The client for threads, over urllib3."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar, Unpack

import urllib3

from syncer.client import protocol
from syncer.client.protocol import FreshnessError, Options, Request, Session, Shown, Steps, Unavailable

T = TypeVar("T")


class Client:
    """Waits, refreshes and falls back. Threads may share it. Every method may raise `FreshnessError`.

    url: of a daemon. read_token, write_token: settings of the daemon. pool: connections with your own TLS settings.
    """

    def __init__(
        self, url: str, read_token: str = "", write_token: str = "", pool: urllib3.PoolManager | None = None
    ) -> None:
        self._url, self._tokens = protocol.base(url), (read_token, write_token)
        self._pool = pool or urllib3.PoolManager(maxsize=32)

    def wait(self, model: str, token: str = "now", timeout: float = 5.0, searchable: bool = False) -> dict[str, Any]:
        """Returns when the documents show the token's commit, with the fields of `GET /wait`."""
        return self._run(protocol.one(protocol.wait(model, token, timeout, searchable)))

    def refresh(self, model: str, token: str = "now", timeout: float = 5.0, **what: Any) -> dict[str, Any]:
        """Renders documents now. what: `keys=[…]`, or `table=…, rows=[…]`."""
        return self._run(protocol.one(protocol.refresh(model, what, token, timeout)))

    def status(self, model: str, timeout: float = 2.0) -> dict[str, Any]:
        """Returns the state of a read model. `staleness_seconds` is the greatest age of a document."""
        return self._run(protocol.one(protocol.status(model, timeout)))

    def read(
        self,
        model: str,
        session: Session,
        read_model: Callable[[], T],
        write_store: Callable[[], T],
        **options: Unpack[Options],
    ) -> Shown[T]:
        """Returns the read model if it shows the session's last write, if need be after a refresh, else PostgreSQL.

        read_model: may raise `Unavailable` if its store is down. Wrong names and credentials raise FreshnessError.
        """
        return self._run(protocol.read(model, session, read_model, write_store, time.monotonic, **options))

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._send(step) if isinstance(step, Request) else step()
                except FreshnessError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _send(self, request: Request) -> dict[str, Any]:
        url, headers = self._url + request.path, request.headers(*self._tokens)
        limits: dict[str, Any] = {"timeout": urllib3.Timeout(total=max(request.seconds, 0.001)), "retries": False}
        try:
            response = self._pool.request(request.method, url, body=request.body, headers=headers, **limits)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise protocol.too_slow(self._url, request) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the daemon at {self._url} does not answer: {error}") from error
        return protocol.parse(response.status, response.data)
