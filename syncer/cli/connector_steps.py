"""Implements the steps that `syncer connectors apply` and `syncer connectors reset` share."""

from __future__ import annotations

from typing import Any

import psycopg

from syncer.cli import output
from syncer.config.schema import Config
from syncer.connect.client import Connect
from syncer.errors import Retry
from syncer.monitors.canary_probe import RoundTripCheck
from syncer.pacing import poll_until
from syncer.postgres.publication import OpenTransactions, wait_for_open_transactions
from syncer.postgres.session import classify_error
from syncer.registry.registry import Registry

_POLL_SECONDS = 0.5


def write_session(config: Config) -> psycopg.Connection[Any]:
    """Connects with permission to write. The syncer creates nothing but the publication in this database."""
    try:
        return psycopg.connect(**config.postgres.arguments(), autocommit=True)
    except psycopg.Error as error:
        raise classify_error(error, "cannot connect to PostgreSQL") from error


def wait_until_delivering(
    client: Connect, registry: Registry, session: psycopg.Connection[Any], name: str, timeout: float
) -> None:
    """Waits until the connector runs and has delivered a message that is committed now.

    A running task proves little: a connector that failed on a record runs for some seconds before it fails again.
    After `timeout` seconds, prints a warning and returns.
    """
    client.wait_running(name, timeout)
    try:
        check = RoundTripCheck(registry, session)

        def has_arrived() -> bool:
            client.wait_running(name, timeout, steady=0)
            return check.has_arrived()

        if not poll_until(has_arrived, timeout=timeout, interval=_POLL_SECONDS):
            problem = f"has not yet delivered a change that was committed {timeout:.0f} s ago"
            cause = "It may have a backlog or run a snapshot. → syncer connectors status"
            output.echo(f"connector {name} {problem}. {cause}", style="yellow", err=True)
    except psycopg.Error as error:
        raise classify_error(error, "cannot commit a message") from error


def wait_for_transactions(session: psycopg.Connection[Any], timeout: float) -> None:
    """Waits until all open transactions have ended, or prints a warning after `timeout` seconds.

    Changes that a transaction made before its table was published never reach Kafka. A backfill that starts after the
    end of the transaction includes them.
    """

    def report(still: OpenTransactions) -> None:
        output.echo(f"waiting for open transactions to end: {still}", err=True)

    try:
        wait_for_open_transactions(session, timeout, progress=report)
    except Retry as error:
        output.echo(f"still open; `syncer backfill` will wait for them: {error.why}", style="yellow", err=True)
