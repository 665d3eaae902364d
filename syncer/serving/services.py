"""The interfaces through which endpoints reach the daemon. The runtime implements them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from syncer.config.schema import PushSettings
from syncer.ports import DocumentTopic
from syncer.telemetry.metrics import PushMetrics


class Health(Protocol):
    """Provides the state that the server serves.

    The thread of the server calls these methods, so they have to return at once, from memory.
    """

    def live(self) -> tuple[bool, str]:
        """Returns whether the process makes progress, and the reasons if not."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Returns whether all read models are kept in sync, and the reasons if not."""
        ...

    def status(self) -> dict[str, Any]:
        """Returns the whole state as JSON values. `models` maps the name of each read model to its state."""
        ...


class Wait(Protocol):
    """One caller that waits until documents show its write."""

    future: Future[dict[str, Any]]
    """The fields of the response. The endpoint cancels it to give up."""

    def progress(self) -> dict[str, Any]:
        """Returns what is wanted, what is reached, and why the read model is behind."""
        ...


class Waiting(Protocol):
    """Lets callers wait until the documents of a read model show a commit."""

    def wait(self, model: str, token: str, *, searchable: bool) -> Wait:
        """Begins to wait. searchable: also until searches find the documents.

        Raises SyncerError at once, or through the future, for a token or read model for which nobody can wait.
        """
        ...


class Refreshes(Protocol):
    """Refreshes documents on request."""

    def refresh(self, model: str, body: Any, client: str) -> Mapping[str, Any]:
        """Returns the response as JSON values. Blocks until every sink has the documents.

        body: of the request, as JSON values. client: the name of the client whose rate is limited.
        Raises SyncerError. `freshness.refused.status_of` returns its status.
        """
        ...


class DocumentTopics(Protocol):
    """Provides the documents of the read models for clients that follow them."""

    settings: PushSettings

    def topic(self, model: str) -> DocumentTopic:
        """Returns the topic of a read model. Returns at once, from memory; the topic's own methods block.

        Raises SyncerError: Refused (404) for an unknown read model, Refused (409) for one without a Kafka sink.
        """
        ...

    def metrics(self, model: str) -> PushMetrics:
        """Returns the metrics of the clients of a read model that has a topic."""
        ...


@dataclass(frozen=True)
class Services:
    """Everything that the endpoints need from the process.

    health: the state of the process and its read models.
    metrics: the metrics that `/metrics` exports.
    waiting: None if the process keeps no read model in sync.
    refreshes: refreshes documents; None if the process has no lanes.
    overview: returns the values of the page from memory, with samples after a time (seconds since the Unix epoch).
        None if the process has no page.
    documents: the topics whose changes are pushed.
    """

    health: Health
    metrics: CollectorRegistry
    waiting: Waiting | None = None
    refreshes: Refreshes | None = None
    overview: Callable[[float], Mapping[str, Any]] | None = None
    documents: DocumentTopics | None = None
