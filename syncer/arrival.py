"""Whether changes arrive, as Kafka Connect and PostgreSQL tell at this moment: for commands.

The daemon looks for itself, again and again (`watch.py`); what both say of it is in `checks/running.py`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from syncer import load
from syncer.checks import Finding, Slot, Status, check_running
from syncer.checks.running import NoAnswer
from syncer.checks.source import RESET
from syncer.config import Config
from syncer.connectors import connect, find_definition
from syncer.errors import Fatal, SyncerError
from syncer.rows.publication import read_facts


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connector and its slot."""

    connector: str
    status: Status | NoAnswer | None
    """None: there is no such connector."""
    slot_name: str
    slot: Slot | NoAnswer | None
    """None: it does not exist."""
    away: tuple[SyncerError, ...]
    """What could not be asked."""

    @property
    def findings(self) -> list[Finding]:
        return list(check_running(self.connector, self.status, self.slot_name, self.slot))


def look(config: Config) -> Arrival:
    """A server that does not answer is told in the result. Raises Fatal if no connector is defined."""
    definition = find_definition(config, names_only=True)
    name = definition.config.get("slot.name", "")
    status: Status | NoAnswer | None = "unknown"
    slot: Slot | NoAnswer | None = "unknown"
    away: list[SyncerError] = []
    if config.connect.url:
        try:
            with closing(connect(config)) as client:
                status = client.status(definition.name)
        except SyncerError as error:
            away.append(error)
    try:
        with load.reading(config) as connection:
            slot = read_facts(connection, [], publication="", slot=name).slot
    except SyncerError as error:
        away.append(error)
    return Arrival(definition.name, status, name, slot, tuple(away))


def require_slot(config: Config, model: str) -> None:
    """Raises Fatal if what is built now would have to be built again, because changes are lost on their way
    until the connector has another slot. No word of a connector that is not defined or cannot be asked."""
    try:
        findings = look(config).findings
    except Fatal:
        return
    for finding in reversed(findings):  # the slot's own words first
        if finding.code == "slot-lost" or finding.fix == RESET:
            what = "changes are lost on their way, so what is built now would have to be built again"
            raise Fatal(what, where=model, why=f"{finding.where}: {finding.what}", hint=finding.fix)
