"""Implements `serving.services.Waiting` with the monitor of the freshness."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from syncer.errors import Retry
from syncer.freshness import tokens
from syncer.freshness.monitor import FreshnessMonitor
from syncer.freshness.waiting import Caller
from syncer.freshness.watermark import Watermark


class ModelWaits:
    """Lets clients of the HTTP server wait for the watermarks of a daemon."""

    def __init__(self, monitor: FreshnessMonitor) -> None:
        self._monitor = monitor

    def wait(self, model: str, token: str, *, searchable: bool) -> _Wait:
        """See `serving.services.Waiting.wait`."""
        return _Wait(self._monitor, self._monitor.wait(model, tokens.parse(token)), searchable=searchable)


class _Wait:
    """Implements `serving.services.Wait`."""

    def __init__(self, monitor: FreshnessMonitor, caller: Caller, *, searchable: bool) -> None:
        self._monitor, self._caller, self._searchable = monitor, caller, searchable
        self.future: Future[dict[str, Any]] = Future()
        caller.future.add_done_callback(self._reached)
        self.future.add_done_callback(self._given_up)

    def progress(self) -> dict[str, Any]:
        """See `serving.services.Wait.progress`."""
        found = self._monitor.freshness(self._caller.model)
        reached = found.watermark.clock if found.watermark else None
        reason = "a sink is being refreshed for searches" if self._caller.future.done() else found.reason
        return {"wanted": self._caller.wanted, "reached": reached, "reason": reason}

    def _reached(self, future: Future[Watermark]) -> None:
        """The watermark shows the commit, or the wait has failed."""
        if future.cancelled():
            return
        if future.exception() or not self._searchable:
            self._end(future)
            return
        try:
            refreshed = self._monitor.make_searchable(self._caller.model, future.result())
        except Retry as error:
            refreshed = Future()
            refreshed.set_exception(error)
        refreshed.add_done_callback(self._end)

    def _end(self, future: Future[Watermark]) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if error := future.exception():
            self.future.set_exception(error)
        else:
            self.future.set_result(self._monitor.freshness(self._caller.model).status())

    def _given_up(self, future: Future[dict[str, Any]]) -> None:
        if future.cancelled():
            self._caller.future.cancel()
