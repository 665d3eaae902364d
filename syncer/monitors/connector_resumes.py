"""Detects that the connector resumed and may have lost rows, and decides what is rendered again then.

Debezium loses rows of a COPY when Kafka Connect dies during it. The rows of a page have one position in the log, and
the connector resumes after that position (debezium/dbz#1554). Nothing in Kafka shows the loss, and the canary arrives.
So the syncer saves the reader of the slot: a PostgreSQL process, with its id and start time. Another reader means that
the connector resumed, even if no daemon ran at that time.

What is rendered again:

    Debezium before 3.7 may lose any change. So all documents are rendered.
    Later versions lose inserted rows only: the rest of a page of which they had sent one row. Such a row is in its
    table, and `xmin` names the transaction that wrote it. So it is enough to render the documents of all rows that
    were written since a transaction id from which on rows can be missing.
    That id comes from the proof of freshness (`freshness/proof.py`). While reader R read the slot, it was proved for a
    snapshot that everything before it is in Kafka. A later resume can lose only what that snapshot does not show.
    A reader may end before anything is proved. Then the proof that the last repair relied on is used again: what was
    in Kafka then is there now. Without any proof, all documents are rendered.

Why no loss stays undetected:

    Rows that are lost when reader R begins belong to transactions that began before R. Some of them had committed,
    but may not be visible yet. Others were in progress (debezium/dbz#76). So after it has read R, the syncer waits
    for all transactions that are open at that time. A render after that shows the rows.
    R is saved once the work items are durable. A reader that comes after R differs from R, whenever it comes. So the
    next comparison detects it. The number of resumes in between does not matter.
    While no process reads the slot, there is nothing to compare. The last reader stays saved.
    For a new generation, the reader is saved before the backfill waits for open transactions and takes its
    snapshot. If no process reads the slot then, the first reader counts as a new one.
    Two processes that both compare only render twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import psycopg

from syncer.checks import POSTGRES_CONNECTOR, Reader, loses_only_inserts
from syncer.config.schema import Config
from syncer.connect.lookup import connect, find_definition
from syncer.errors import SyncerError
from syncer.postgres.publication import read_slot
from syncer.registry.records import CanaryPosition, Proved, Registration, SlotReader
from syncer.registry.registry import Registry


class Resumed(NamedTuple):
    """The result of a comparison."""

    why: str
    """Why documents have to be rendered again; empty if they need not be."""
    reader: SlotReader
    """The value to save, after the work items are durable."""
    proved: Proved | None = None
    """Before which transaction no row can be missing. None: all documents have to be rendered again."""


class Resumes:
    """Compares the readers of the slot, for one generation of a read model."""

    def __init__(self, config: Config, registry: Registry, registration: Registration) -> None:
        self.config, self.registry = config, registry
        self._key = SlotReader.key(registration.id)

    def save_initial_state(self, connection: psycopg.Connection[Any]) -> None:
        """Saves the reader before the first document of a new generation is rendered."""
        if not self._saved() and (slot := self._slot()):
            self.save(SlotReader(_reader(connection, slot), self._only_inserts()[0]))

    def check(self, connection: psycopg.Connection[Any]) -> Resumed | None:
        """Returns None if there is nothing to do and nothing to save.

        Raises psycopg.Error and Retry, but no Retry if only Kafka Connect is unavailable.
        """
        if not (slot := self._slot()):
            return None
        return compare(slot, self._saved(), _reader(connection, slot), self._only_inserts, self._proved)

    def save(self, value: SlotReader) -> None:
        if value != self._saved():
            self.registry.state.save(self._key, value)

    def _only_inserts(self) -> tuple[bool | None, str]:
        """Returns whether the connector loses only inserted rows, and the reason to render documents again."""
        if self.config.source.repair_after_resume == "always":
            return None, "source.repair_after_resume is always"
        try:
            with closing(connect(self.config)) as client:
                version = client.plugin_version(POSTGRES_CONNECTOR)
        except SyncerError as error:
            return None, f"it is unknown which changes this Debezium loses when it resumes: {error}"
        only_inserts = loses_only_inserts(version)
        if only_inserts is None:
            return None, f"it is unknown which changes Debezium {version} loses when it resumes"
        return only_inserts, f"Debezium {version} may lose rows of a COPY when it resumes"

    def _slot(self) -> str:
        """Returns the name of the slot; empty if readers are not to be compared, or no connector is defined."""
        if self.config.source.repair_after_resume == "never":
            return ""
        try:
            return find_definition(self.config, names_only=True).config.get("slot.name", "")
        except SyncerError:
            return ""

    def _saved(self) -> SlotReader | None:
        return self.registry.state.load().get(self._key)

    def _proved(self) -> Sequence[Proved]:
        position = self.registry.state.load().get(CanaryPosition.key(self.config.kafka.topic_prefix))
        return position.proved if position else ()


def compare(
    slot: str,
    saved: SlotReader | None,
    reader: Reader | None,
    only_inserts: Callable[[], tuple[bool | None, str]],
    proved: Callable[[], Sequence[Proved]],
) -> Resumed | None:
    """Compares the saved reader with the current one. Returns None if there is nothing to do and nothing to save.

    saved: the saved reader; None if an earlier version of the syncer saved nothing.
    only_inserts: see `Resumes._only_inserts`. An upgrade does not repair the losses of the earlier connector. So it has
        to be true for the saved connector and for the current one.
    proved: what was proved while earlier readers read the slot.
    """
    if reader is None:
        return None
    same = saved is not None and saved.reader == reader
    if saved and same and saved.only_inserts is not None:
        return None
    inserts, reason = only_inserts()
    if saved and same:
        return Resumed("", SlotReader(reader, inserts, saved.proved))
    found = None
    if saved and saved.only_inserts and inserts:
        found = next((one for one in proved() if one.reader == saved.reader), saved.proved)
    what = "the connector resumed" if saved else "the connector may have resumed"
    return Resumed(f"{what} (another process reads slot {slot}): {reason}", SlotReader(reader, inserts, found), found)


def _reader(connection: psycopg.Connection[Any], slot: str) -> Reader | None:
    found = read_slot(connection, slot)
    return found.reader if found else None
