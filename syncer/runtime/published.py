"""Implements `serving.services.DocumentTopics` with the Kafka sinks of the read models."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.freshness.refused import Refused
from syncer.ports import DocumentTopic
from syncer.registry.loader import document_topic
from syncer.telemetry.metrics import Metrics, PushMetrics


class PublishedDocuments:
    """Provides the documents topics of these read models. Does not connect."""

    def __init__(self, config: Config, models: Sequence[Model], metrics: Metrics) -> None:
        self.settings = config.push
        self._metrics = metrics
        self._config, self._models = config, {model.name: model for model in models}
        self._topics: dict[str, DocumentTopic | None] = {}

    def metrics(self, model: str) -> PushMetrics:
        """See `serving.services.DocumentTopics.metrics`."""
        return self._metrics.for_push(model)

    def topic(self, model: str) -> DocumentTopic:
        """See `serving.services.DocumentTopics.topic`."""
        if model not in self._models:
            hint = f"one of: {', '.join(self._models)}"
            raise Refused(HTTPStatus.NOT_FOUND, f"read model {model!r} does not exist", hint=hint)
        if model not in self._topics:
            self._topics[model] = document_topic(self._config, self._models[model])
        found = self._topics[model]
        if found is None:
            raise Refused(
                HTTPStatus.CONFLICT,
                f"read model {model} has no Kafka sink, so its changes cannot be pushed",
                hint=f"add kafka: {{topic: {model}-documents}} under sink: in {self._models[model].file}, "
                f"then: syncer resync {model}",
            )
        return found
