"""Answers requests to refresh documents, with the read model's session of the moment.

A request that ends in a generation which is no longer the active one is repeated, as soon as the supervisor has opened
the new one. It is safe to repeat: a refresh only writes what PostgreSQL says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from syncer.config.schema import RefreshSettings
from syncer.errors import SyncerError
from syncer.freshness.generations import GenerationChanged
from syncer.freshness.rate_limit import RateLimit
from syncer.freshness.refresh import Refreshed, Refresher
from syncer.freshness.refused import status_of
from syncer.session import ModelSession
from syncer.telemetry.metrics import ModelMetrics


class RefreshService:
    """The refreshes of one read model. Any thread may call `refresh`; the supervisor opens and closes.

    unavailable: returns the error while no session is open.
    """

    def __init__(
        self, settings: RefreshSettings, metrics: ModelMetrics, unavailable: Callable[[], SyncerError]
    ) -> None:
        self._metrics, self._unavailable = metrics, unavailable
        # A bucket has to hold the largest request that is allowed.
        clients = max(2 * settings.client_rate, settings.max_documents)
        self._client_limit = RateLimit(settings.client_rate, clients)
        self._key_limit = RateLimit(settings.key_rate, 2 * settings.key_rate)
        self._refresher: Refresher | None = None
        self._changed = threading.Condition()

    def open(self, session: ModelSession) -> None:
        """Answers requests with this session. Opens no connection before the first request."""
        opened = Refresher(session, self._metrics, client_limit=self._client_limit, key_limit=self._key_limit)
        with self._changed:
            self._refresher = opened
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the refreshes of the session, before its sinks are closed."""
        with self._changed:
            closing, self._refresher = self._refresher, None
        if closing:
            closing.close()

    def refresh(self, body: Any, client: str = "") -> Refreshed:
        """Returns when every sink has the documents. See `Refresher.refresh` for arguments and errors.

        body: of the request, as JSON values.
        """
        began = time.monotonic()
        try:
            refreshed = self._refresh(body, client)
        except SyncerError as error:
            self._metrics.refreshed(status_of(error), 0, time.monotonic() - began)
            raise
        self._metrics.refreshed(200, refreshed.refreshed, time.monotonic() - began)
        return refreshed

    def _refresh(self, body: Any, client: str) -> Refreshed:
        refresher = self._refresher
        if refresher is None:
            raise self._unavailable()
        request = refresher.parse(body)
        deadline = time.monotonic() + request.timeout
        while True:
            try:
                return refresher.refresh(request, client)
            except GenerationChanged:
                following = self._other_than(refresher, deadline)
                if following is None:
                    raise
                refresher, request = following, following.parse(body)

    def _other_than(self, refresher: Refresher, deadline: float) -> Refresher | None:
        """Waits for the next session. Returns None if there is none before the deadline."""

        def opened() -> bool:
            return self._refresher is not None and self._refresher is not refresher

        with self._changed:
            self._changed.wait_for(opened, max(0.0, deadline - time.monotonic()))
            return self._refresher if opened() else None
