"""Weaker rules about connectors that resume and lose rows (`monitors/connector_resumes.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from syncer.checks import Reader
from syncer.errors import Retry
from syncer.freshness.candidates import Candidate
from syncer.registry.records import Proved
from tests.simulation.freshness import Measurement
from tests.simulation.process import Process
from tests.simulation.weaker.rule import Weaker


def _repairs_nothing(self: Process, proved: Proved | None) -> None:
    """Stores that the connector resumed, and repairs nothing."""


def _without_waiting(self: Process) -> None:
    """Does not wait for transactions that are in WAL and not visible yet."""


def _stores_first(self: Process) -> None:
    """Stores the new reader first, and hands over the work then."""
    stored, reader = self.world.stored, self.world.connector.reader
    if reader != stored.reader:
        stored.reader = reader
        self.world.scheduler.pause()
        with suppress(Retry):
            self.repair(None)


def _newest_proof(self: Process) -> Sequence[Proved]:
    """Takes the newest proof, although it belongs to a reader that came after the loss."""
    saved, proved = Reader(self.world.stored.reader, None), list(self.world.stored.proved.values())
    return [replace(proved[-1], reader=saved)] if proved else []


def _until_xmax(self: Measurement, candidate: Candidate) -> None:
    """Leaves out the transactions that were in progress in the snapshot."""
    reader = Reader(self.connector.reader, None)
    self.world.stored.proved[reader] = Proved(reader, *candidate.identity, candidate.snapshot.xmax)


def _unproved(self: Measurement) -> None:
    """Takes the newest candidate for proved."""
    _begin(self)
    if self.proof.waiting:
        newest = [*self.proof._waiting.values()][-1]
        self.remember(newest)


_begin = Measurement._begin

RULES = {
    "a resume is not repaired": Weaker(
        "rows that the connector lost stay lost",
        {(Process, "repair"): _repairs_nothing},
    ),
    "a resume is repaired at once": Weaker(
        "a render does not see a transaction whose rows the connector lost",
        {(Process, "wait_for_open"): _without_waiting},
        first=10_250,
    ),
    "a resume is stored, then repaired": Weaker(
        "a process that dies in between, or whose work items are not acknowledged, repairs nothing",
        {(Process, "_compare_reader"): _stores_first},
    ),
    "recent rows are read at once": Weaker(
        "a look at the tables does not see a transaction whose rows the connector lost",
        {(Process, "wait_for_open"): _without_waiting},
        resumes=True,
        first=1_250,
    ),
    "recent rows since the proof of another reader": Weaker(
        "rows that were lost when this reader began are older",
        {(Process, "proved"): _newest_proof},
        resumes=True,
        first=1_250,
    ),
    "recent rows since the snapshot's xmax": Weaker(
        "the snapshot does not show transactions in progress, and their rows can be lost",
        {(Measurement, "remember"): _until_xmax},
        resumes=True,
        first=36_400,
    ),
    "recent rows since a candidate that is not proved": Weaker(
        "its transactions are not in Kafka yet",
        {(Measurement, "_begin"): _unproved},
        resumes=True,
        first=3_400,
    ),
}
