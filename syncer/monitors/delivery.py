"""Checks once whether changes can arrive, for a command. Asks Kafka Connect and PostgreSQL.

The daemon checks repeatedly (`monitors/source_monitor.py`). Both report the findings of `checks/running.py`.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from syncer.checks import Finding, Slot, Status, check_running
from syncer.checks.running import NoAnswer
from syncer.checks.source import RESET
from syncer.config.schema import Config
from syncer.connect.lookup import connect, find_definition
from syncer.errors import Fatal, Retry, SyncerError
from syncer.pacing import SystemTime
from syncer.postgres.publication import read_facts
from syncer.registry import loader

T = TypeVar("T")


ANSWER_TIMEOUT = 2.0
"""Seconds that a command waits for each server. It asks all of them concurrently."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The state of a connector and its slot."""

    connector: str
    status: Status | NoAnswer | None
    """None if the connector does not exist."""
    slot_name: str
    slot: Slot | NoAnswer | None
    """None if the slot does not exist."""
    away: tuple[SyncerError, ...]
    """The errors of servers that did not answer."""

    @property
    def findings(self) -> list[Finding]:
        return list(check_running(self.connector, self.status, self.slot_name, self.slot))


def answer(future: Future[T], deadline: float | None, who: str, where: str) -> T:
    """Returns a server's answer. Raises the error of the request, and Retry if there is no answer in time.

    deadline: in seconds of the monotonic clock; None to wait without a limit.
    who, where: the server and its setting, for the error.
    """
    if deadline is not None and not SystemTime().done(future, max(0.0, deadline - time.monotonic())):
        raise Retry(f"{who} does not answer", where=where, why=f"no answer within {ANSWER_TIMEOUT:g} s")
    return future.result()


def check_delivery(config: Config, deadline: float | None = None) -> Delivery:
    """Returns the state of the connector and its slot. Raises Fatal if no connector is defined.

    deadline: as in `answer`. The result contains the error of a server that does not answer in time.
    """
    definition = find_definition(config, names_only=True)
    name = definition.config.get("slot.name", "")
    status: Status | NoAnswer | None = "unknown"
    slot: Slot | NoAnswer | None = "unknown"
    away: list[SyncerError] = []

    def ask_connect() -> Status | NoAnswer | None:
        with closing(connect(config)) as client:
            return client.status(definition.name)

    def ask_postgres() -> Slot | NoAnswer | None:
        with loader.catalog_session(config) as connection:
            return read_facts(connection, [], publication="", slot=name).slot

    slots = SystemTime().run_in_background("slot", ask_postgres)
    if url := config.connect.url:
        try:
            status = answer(SystemTime().run_in_background("connect", ask_connect), deadline, "Kafka Connect", url)
        except SyncerError as error:
            away.append(error)
    try:
        slot = answer(slots, deadline, "PostgreSQL", "postgres.dsn")
    except SyncerError as error:
        away.append(error)
    return Delivery(definition.name, status, name, slot, tuple(away))


def require_slot(config: Config, model: str) -> None:
    """Raises Fatal if changes are lost until the connector has another slot.

    A generation that is built before that would have to be built again. A connector that is not defined, or a server
    that does not answer, raises nothing.
    """
    try:
        findings = check_delivery(config).findings
    except Fatal:
        return
    for finding in reversed(findings):  # the finding of the slot comes last, and explains most
        if finding.code == "slot-lost" or finding.fix.endswith(RESET):
            what = "the connector loses changes, so a generation built now would have to be built again"
            raise Fatal(what, where=model, why=f"{finding.where}: {finding.what}", hint=finding.fix)
