"""Refreshes documents in this process, for `syncer refresh`. Needs no daemon."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from prometheus_client import CollectorRegistry

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal
from syncer.freshness.rate_limit import RateLimit
from syncer.freshness.refresh import Refreshed, Refresher
from syncer.operations.one_off import OneOffRun
from syncer.registry.registry import Registry
from syncer.telemetry.metrics import Metrics


def refresh_here(config: Config, model: Model, registry: Registry, body: Mapping[str, Any]) -> Refreshed:
    """Refreshes documents. body: as in the HTTP request.

    Raises Fatal if the read model has never run, and the errors of `Refresher.refresh`.
    """
    if registry.registered(model.name) is None:
        raise Fatal(
            "there is nothing to refresh: the read model has never run", where=model.name, hint="syncer backfill"
        )
    metrics, unlimited = Metrics(CollectorRegistry()).for_model(model.name), RateLimit(0, 0)
    with OneOffRun(config, model, registry, metrics) as run:
        refresher = Refresher(run.opened, metrics, client_limit=unlimited, key_limit=unlimited)
        with closing(refresher):
            return refresher.refresh(refresher.parse(dict(body)))
