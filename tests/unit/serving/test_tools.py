"""Tests blocking calls whose client has gone."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

from syncer.serving.tools import BlockingCalls


def test_the_error_of_a_call_whose_client_has_gone_is_no_unexpected_error() -> None:
    """asyncio would log it with a traceback as an exception that was never retrieved."""
    reported: list[dict[str, Any]] = []
    began, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def fails() -> None:
        began.set()
        goes_on.wait(10)
        try:
            raise RuntimeError("too late")
        finally:
            ended.set()

    async def client() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        call = asyncio.ensure_future(BlockingCalls().run(fails))
        await asyncio.to_thread(began.wait, 10)
        call.cancel()
        await asyncio.wait([call])
        goes_on.set()
        await asyncio.to_thread(ended.wait, 10)
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        gc.collect()

    asyncio.run(client())
    assert ended.is_set() and not reported
