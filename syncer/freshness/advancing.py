"""Takes the candidates of one read model through the steps of `watermark.py`, with the facts of its session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from syncer.errors import SyncerError
from syncer.freshness.candidates import Basis, Confirmation
from syncer.freshness.watermark import Tracker, Watermark
from syncer.ports import Partition
from syncer.postgres.fingerprint import Fingerprint


class ModelEvidence(Protocol):
    """The facts about one open read model. `freshness.evidence.Evidence` is one."""

    model: str
    change_topics: tuple[str, ...]
    work_topics: tuple[str, ...]

    @property
    def fingerprint(self) -> Fingerprint: ...

    def basis(self) -> Basis: ...

    def acknowledged(self, ends: Mapping[Partition, int]) -> Mapping[Partition, int]: ...

    def confirmation(self, read_tables: Callable[[Fingerprint], str]) -> Confirmation | None: ...


def advance(evidence: ModelEvidence, tracker: Tracker, read_tables: Callable[[Fingerprint], str]) -> Watermark | None:
    """Compares positions, and confirms what every sink has acknowledged. Returns the watermark if it advanced.

    read_tables: see `Evidence.confirmation`.
    """
    if tracker.needs_positions:
        tracker.positions(evidence.acknowledged(tracker.waits_for))
    if tracker.needs_confirmation:
        tracker.ask()
        if found := evidence.confirmation(read_tables):
            return tracker.confirm(found)
    return None


@contextlib.contextmanager
def reported(tracker: Tracker) -> Iterator[None]:
    """Makes an error of one read model the reason of its watermark. The other read models go on."""
    try:
        yield
    except SyncerError as error:
        tracker.reason = str(error)
