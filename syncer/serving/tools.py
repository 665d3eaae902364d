"""Tools for the code of endpoints: the end of the server, waiting with a time-out, and threads for blocking calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from syncer.serving.problem import Problem
from syncer.serving.tokens import Tokens

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
_BLOCKING_CALLS = 8


class Stopping(Problem):
    """The server is stopping. A client that has not received a response yet receives 503."""

    def __init__(self) -> None:
        hint = "send the request again; another daemon may answer it"
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, "the daemon is stopping", hint, headers={"Retry-After": "1"})


class Shutdown:
    """Signals long responses to end. They have about a second. Then their tasks are cancelled."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def begun(self) -> bool:
        return self._event.is_set()

    def begin(self) -> None:
        """Ends all waiting. The thread of the server calls it."""
        self._event.set()

    async def wait(self) -> None:
        """Waits until the server stops."""
        await self._event.wait()

    async def wait_for(
        self, awaitable: Awaitable[T], timeout: float | None = None, request: Request | None = None
    ) -> T:
        """Returns the result of the awaitable, and cancels it if something else happens first.

        timeout: seconds. Raises TimeoutError after this time.
        request: a request whose body has been read. Raises ClientDisconnect when its client closes the connection.
        Raises Stopping when the server stops.
        """
        work = asyncio.ensure_future(awaitable)
        stop = asyncio.ensure_future(self.wait())
        gone = asyncio.ensure_future(_disconnected(request)) if request else None
        tasks = [task for task in (work, stop, gone) if task]
        try:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if stop.done():
                raise Stopping
            if gone and gone.done():
                raise ClientDisconnect
            raise TimeoutError
        finally:
            for task in tasks:
                task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class BlockingCalls:
    """Runs blocking functions on a bounded number of threads, so that the server answers others meanwhile."""

    def __init__(self, threads: int = _BLOCKING_CALLS) -> None:
        self._limiter = CapacityLimiter(threads)

    async def run(self, function: Callable[[*Arguments], T], *args: *Arguments) -> T:
        """Returns the result of the function. Waits while all threads are busy.

        A cancelled call returns at once. Its function goes on, and occupies its thread until it ends. So a function
        needs a time-out of its own.
        """
        work = asyncio.ensure_future(to_thread.run_sync(function, *args, limiter=self._limiter))
        work.add_done_callback(_forget_error)  # otherwise asyncio logs the error of a call that was cancelled
        return await asyncio.shield(work)


def check_query(query: QueryParams, known: Collection[str], lists: Collection[str] = ()) -> None:
    """Refuses a misspelt or doubled parameter: the caller would believe that it has an effect.

    known: all names. lists: those that may be given several times. Raises Problem (400).
    """
    if unknown := set(query) - set(known):
        what = f"unknown parameters: {', '.join(sorted(unknown))}"
        raise Problem(HTTPStatus.BAD_REQUEST, what, f"known: {', '.join(known)}")
    if doubled := [name for name in query if name not in lists and len(query.getlist(name)) > 1]:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the parameter {doubled[0]} is given more than once", "give it once")


def _forget_error(work: asyncio.Future[Any]) -> None:
    if not work.cancelled():
        work.exception()


@dataclass(frozen=True)
class Tools:
    """What the server offers to the endpoints.

    tokens: for endpoints that answer differently to clients that may read. Others declare `Endpoint.access`.
    """

    tokens: Tokens
    shutdown: Shutdown = field(default_factory=Shutdown)
    blocking: BlockingCalls = field(default_factory=BlockingCalls)
