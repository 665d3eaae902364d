"""A connector that resumed may have lost rows: all documents are rendered again.

Debezium before 3.7 loses rows of a COPY when Kafka Connect dies amid it: the rows of a page have one position
in the log, and the connector resumes after that (debezium/dbz#1554). Nothing in Kafka shows it, and the
canary arrives. So the reader of the slot is noted, a PostgreSQL process with its id and start. Another reader
means that the connector resumed, also while no daemon ran.

Why this misses nothing:

    Rows that are lost when reader R begins belong to transactions that began before R. Some had committed,
    but may not be visible yet; some were in progress (debezium/dbz#76). So after R is read, all transactions
    that are open then are waited for. What is rendered after that shows the rows.
    R is noted once the work items are durable. A reader that comes after R was read, at any moment, is not R,
    so the next comparison finds it. How often the connector resumed in between does not matter.
    While nobody reads the slot there is nothing to compare; the last reader stays noted.
    For a new generation, the reader is noted before the backfill waits for open transactions and takes its
    snapshot. If nobody reads the slot then, the first reader is a new one.
    Two processes that both compare only render twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import psycopg

from syncer.checks import POSTGRES_CONNECTOR, Reader, resumes_soundly
from syncer.config.schema import Config
from syncer.connect.lookup import connect, find_definition
from syncer.errors import SyncerError
from syncer.postgres.publication import read_slot
from syncer.registry.records import Registration, SlotReader
from syncer.registry.registry import Registry


class Resumed(NamedTuple):
    """What is to be noted, and what has to be done before."""

    why: str
    """Why all documents have to be rendered again; empty if they need not be."""
    note: SlotReader


class Resumes:
    """Of one generation of a read model."""

    def __init__(self, config: Config, registry: Registry, registration: Registration) -> None:
        self.config, self.registry = config, registry
        self._key = SlotReader.key(registration.id)

    def note_first(self, connection: psycopg.Connection[Any]) -> None:
        """Before the first document of a new generation is rendered."""
        if not self._noted() and (slot := self._slot()):
            self.note(SlotReader(_reader(connection, slot), self._soundness()[0]))

    def look(self, connection: psycopg.Connection[Any]) -> Resumed | None:
        """None if there is nothing to do and nothing to note. Raises psycopg.Error and Retry, the latter not
        if Kafka Connect is unavailable."""
        if not (slot := self._slot()):
            return None
        return compare(slot, self._noted(), _reader(connection, slot), self._soundness)

    def note(self, value: SlotReader) -> None:
        if value != self._noted():
            self.registry.state.save(self._key, value)

    def _soundness(self) -> tuple[bool | None, str]:
        """Whether the connector resumes without a loss; what speaks for rendering all documents."""
        if self.config.source.repair_after_resume == "always":
            return None, "source.repair_after_resume is always"
        try:
            with closing(connect(self.config)) as client:
                version = client.plugin_version(POSTGRES_CONNECTOR)
        except SyncerError as error:
            return None, f"whether Debezium loses rows then is not known: {error}"
        sound = resumes_soundly(version)
        if sound is None:
            return None, f"whether Debezium {version} loses rows then is not known"
        return sound, "an earlier Debezium may have lost rows" if sound else (
            f"Debezium {version} may lose rows of a COPY then"
        )

    def _slot(self) -> str:
        """Empty if readers are not to be looked at, or no connector is defined."""
        if self.config.source.repair_after_resume == "never":
            return ""
        try:
            return find_definition(self.config, names_only=True).config.get("slot.name", "")
        except SyncerError:
            return ""

    def _noted(self) -> SlotReader | None:
        return self.registry.state.load().get(self._key)


def compare(
    slot: str,
    noted: SlotReader | None,
    reader: Reader | None,
    soundness: Callable[[], tuple[bool | None, str]],
) -> Resumed | None:
    """noted: None if nothing was, by an earlier version of the syncer. soundness: see `Resumes._soundness`.

    An upgrade does not make good what the earlier connector lost, so both have to be sound.
    """
    if reader is None:
        return None
    same = noted is not None and noted.reader == reader
    if noted and same and noted.sound is not None:
        return None
    sound, words = soundness()
    if same or (noted and noted.sound and sound):
        return Resumed("", SlotReader(reader, sound))
    what = "the connector resumed" if noted else "the connector may have resumed"
    return Resumed(f"{what} (another process reads slot {slot}): {words}", SlotReader(reader, sound))


def _reader(connection: psycopg.Connection[Any], slot: str) -> Reader | None:
    found = read_slot(connection, slot)
    return found.reader if found else None
