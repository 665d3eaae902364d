"""Defines the errors of a request that name their HTTP status.

    Refused   the request fails because of its own content; the same request fails again
    Later     the same request can succeed later

Any other `Retry` means that a server is unreachable or busy, and any other `Fatal` that the read model has to stop.
Both have status 503. `status_of` returns the status of every error.
"""

from __future__ import annotations

from http import HTTPStatus

from syncer.errors import Fatal, Retry, SyncerError


class Refused(Fatal):
    """A request that fails because of its own content. Nothing is wrong with the read model."""

    def __init__(self, status: HTTPStatus, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, why=why, hint=hint)
        self.status = status


class Later(Retry):
    """A request that cannot be answered now: it came too early, or its client sends too many."""

    def __init__(self, status: HTTPStatus, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, why=why, hint=hint)
        self.status = status


def status_of(error: SyncerError) -> HTTPStatus:
    """Returns the status of the response for an error."""
    return error.status if isinstance(error, Refused | Later) else HTTPStatus.SERVICE_UNAVAILABLE
