"""Checks the topics of the connector: change events, and Kafka Connect's source offsets.

The watermark of a read model is proved by a source offset (`freshness/proof.py`). The proof holds only if Kafka keeps
every record that it has acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from syncer.checks.finding import Finding

SLOWEST_MS = 1_000
"""Milliseconds from a message in Kafka to the commit of its source offset, above which `check_flush` warns."""
_FEWEST = 3
"""Measured delays. With fewer of them, nothing is said."""


class OffsetTopic(NamedTuple):
    """The topic of Kafka Connect's source offsets."""

    name: str
    of_connector: bool
    """Whether the connector names it (`offsets.storage.topic`), so that `connect.offset_topic` does not apply."""
    settings: Mapping[str, str] | None
    """None if it does not exist."""


def check_topics(changes: Mapping[str, Mapping[str, str]], offsets: OffsetTopic | None) -> Iterator[Finding]:
    """Finds settings of topics that make the watermark impossible or false.

    changes: name → settings, of the topics of change events that exist.
    offsets: None if there is no connector.
    """
    for name, settings in changes.items():
        yield from _unclean(name, settings)
    if offsets is None:
        return
    at = f"topic {offsets.name}"
    if offsets.settings is None:
        where = "connector: offsets.storage.topic" if offsets.of_connector else "connect.offset_topic"
        yield Finding(
            "warning",
            "offset-topic",
            where,
            f"{at} of Kafka Connect's offsets does not exist",
            "without it, read models have no watermark, and /wait is never answered",
            "syncer connectors apply"
            if offsets.of_connector
            else "set connect.offset_topic to the workers' offset.storage.topic",
        )
        return
    yield from _unclean(offsets.name, offsets.settings)
    policy = offsets.settings.get("cleanup.policy", "")
    if policy != "compact":
        yield Finding(
            "error",
            "offset-topic",
            at,
            f"cleanup.policy is {policy}",
            "Kafka would remove the connector's position after some time, and changes would be lost",
            f"kafka-configs.sh --alter --topic {offsets.name} --add-config cleanup.policy=compact",
        )


def check_flush(offsets_ms: Sequence[int], messages_ms: Sequence[int]) -> Iterator[Finding]:
    """Finds a worker that commits its source offsets rarely.

    The worker's `offset.flush.interval.ms` cannot be read. So the delay from a message in Kafka to the next commit of
    an offset is measured. Only the first message after a commit counts.
    offsets_ms, messages_ms: when Kafka got the connector's last offsets and messages, sorted, in Unix milliseconds.
    """
    delays = []
    for before, after in pairwise(offsets_ms):
        first = next((moment for moment in messages_ms if moment > before), after)
        if first < after:
            delays.append(after - first)
    if len(delays) < _FEWEST or (median := sorted(delays)[len(delays) // 2]) <= SLOWEST_MS:
        return
    yield Finding(
        "warning",
        "offset-flush",
        "Kafka Connect",
        f"commits source offsets only {median / 1000:.1f} s after a change",
        "/wait and the watermark of a read model wait for this commit",
        "set offset.flush.interval.ms=50 in the properties of the workers, and restart them",
    )


def _unclean(name: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    if settings.get("unclean.leader.election.enable", "false").lower() == "true":
        yield Finding(
            "error",
            "unclean-election",
            f"topic {name}",
            "unclean.leader.election.enable is true",
            "Kafka may lose acknowledged records, and the documents would silently stay old",
            f"kafka-configs.sh --alter --topic {name} --add-config unclean.leader.election.enable=false",
        )
