"""Distinguishes stalled read models from waiting ones, when calls never return and when servers are unreachable."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from syncer.config.schema import load as load_config
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.runtime import supervisor as module
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics
from tests.harness.system import Source, System, new_system
from tests.harness.waiting import until
from tests.integration.test_outages import behind_proxy

_numbers = itertools.count(1)
AFTER = 3.0
CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"


@pytest.fixture
def system(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """Shortens the time after which a silent part counts as stalled."""
    monkeypatch.setattr(module, "STALLED_AFTER", AFTER)
    monkeypatch.setattr(module, "_BACK_OFF", (0.2, 1.0))
    with new_system(source, tmp_path, next(_numbers)) as system:
        system.environment["SYNCER_POSTGRES__STATEMENT_TIMEOUT"] = "1s"
        yield system


@contextmanager
def running(system: System, model: str) -> Iterator[ModelSupervisor]:
    """Runs a read model in this process, as the daemon does."""
    config = load_config(environ=system.environment)
    [declared] = loader.load_declared(config, [model])
    unit = ModelSupervisor(config, declared, open_registry(config), Metrics(CollectorRegistry()).for_model(model))
    unit.start()
    try:
        yield unit
    finally:
        unit.stop()
        assert unit.join(30)


def stalled(unit: ModelSupervisor) -> str:
    """Returns the stalled parts that `/livez` reports, or an empty string."""
    return "; ".join(unit.heartbeats.stalled())


def test_a_sink_that_never_answers_fails_the_liveness_check(system: System) -> None:
    system.environment["SYNCER_ELASTICSEARCH__TIMEOUT"] = "1h"
    with behind_proxy(system, "elasticsearch") as link, running(system, system.orders) as unit:
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(system.orders)
        assert stalled(unit) == ""
        link.stall()
        system.execute("UPDATE {schema}.orders SET status = 'paid'")
        message = until(lambda: stalled(unit))
        assert message.startswith(f"{system.orders}: lane changes: a sink has not answered for")
        link.resume()
        until(lambda: not stalled(unit))
        system.until_in_sync(system.orders)


def test_a_silent_database_fails_the_liveness_check(system: System) -> None:
    """The proxy keeps the connection and acknowledges every packet, so no network timeout ends it."""
    with behind_proxy(system, "postgres") as link, running(system, system.orders) as unit:
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(system.orders)
        link.stall()
        system.execute("UPDATE {schema}.orders SET status = 'paid'")
        message = f"{system.orders}: lane changes has made no progress for"
        until(lambda: stalled(unit).startswith(message), lambda: stalled(unit))  # or a check
        link.resume()
        until(lambda: not stalled(unit))
        system.until_in_sync(system.orders)


def test_a_database_that_is_silent_from_the_start_fails_the_liveness_check(system: System) -> None:
    system.environment["SYNCER_POSTGRES__CONNECT_TIMEOUT"] = "1h"
    with behind_proxy(system, "postgres") as link:
        link.stall()
        with running(system, system.orders) as unit:
            message = until(lambda: stalled(unit))
            assert "starting, but no server has answered or failed for" in message
            link.resume()
            until(lambda: unit.state == "running")
            assert stalled(unit) == ""


@pytest.mark.parametrize("server", ["elasticsearch", "redis", "postgres"])
def test_waiting_for_a_server_does_not_fail_the_liveness_check(system: System, server: str) -> None:
    """A server is unreachable, or silent for longer than its timeout. The daemon waits and needs no restart."""
    system.environment |= {"SYNCER_ELASTICSEARCH__TIMEOUT": "1s", "SYNCER_REDIS__TIMEOUT": "1s"}
    model = system.summaries if server == "redis" else system.orders
    with behind_proxy(system, server) as link, running(system, model) as unit:
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(model)
        link.down() if server == "postgres" else link.stall()
        system.execute("UPDATE {schema}.orders SET status = 'paid'", "UPDATE {schema}.customers SET name = 'B'")
        until(lambda: unit.status()["state"] == "waiting")
        end = time.monotonic() + 2 * AFTER
        while time.monotonic() < end:
            assert stalled(unit) == ""
            assert unit.status()["state"] == "waiting"
            time.sleep(0.2)
        link.up() if server == "postgres" else link.resume()
        system.until_in_sync(model)
