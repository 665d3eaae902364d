"""The client for asyncio, over httpx."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, Unpack

import httpx

from syncer.client import protocol
from syncer.client.protocol import FreshnessError, Options, Request, Session, Shown, Steps, Unavailable

T = TypeVar("T")


class AsyncClient:
    """Does the same as `syncer.client.Client`, with coroutines. Call `close` at the end."""

    def __init__(
        self, url: str, read_token: str = "", write_token: str = "", pool: httpx.AsyncClient | None = None
    ) -> None:
        self._url, self._tokens = protocol.base(url), (read_token, write_token)
        self._pool = pool or httpx.AsyncClient(timeout=None)
        self.close = self._pool.aclose

    async def wait(
        self, model: str, token: str = "now", timeout: float = 5.0, searchable: bool = False
    ) -> dict[str, Any]:
        return await self._run(protocol.one(protocol.wait(model, token, timeout, searchable)))

    async def refresh(self, model: str, token: str = "now", timeout: float = 5.0, **what: Any) -> dict[str, Any]:
        return await self._run(protocol.one(protocol.refresh(model, what, token, timeout)))

    async def status(self, model: str, timeout: float = 2.0) -> dict[str, Any]:
        return await self._run(protocol.one(protocol.status(model, timeout)))

    async def read(
        self,
        model: str,
        session: Session,
        read_model: Callable[[], Awaitable[T]],
        write_store: Callable[[], Awaitable[T]],
        **options: Unpack[Options],
    ) -> Shown[T]:
        return await self._run(protocol.read(model, session, read_model, write_store, time.monotonic, **options))

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await (self._send(step) if isinstance(step, Request) else step())
                except FreshnessError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _send(self, request: Request) -> dict[str, Any]:
        url, headers = self._url + request.path, request.headers(*self._tokens)
        try:
            async with asyncio.timeout(request.seconds):
                response = await self._pool.request(request.method, url, content=request.body, headers=headers)
        except TimeoutError as error:
            raise protocol.too_slow(self._url, request) from error
        except httpx.HTTPError as error:
            raise Unavailable(f"the daemon at {self._url} does not answer: {error!r}") from error
        return protocol.parse(response.status_code, response.content)
