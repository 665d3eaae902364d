"""Compares all expected documents with all documents in the sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.convergence.deployment import Deployment
from tests.convergence.documents import Difference, differences, in_elasticsearch, in_postgres, in_redis
from tests.convergence.oracle import Documents

Expected = dict[tuple[str, str], Documents]
"""Expected documents by read model and sink."""
_KEYS = {"tenants": "tenant", "people": "person", "tasks": "task"}
"""By read model: the second part of its keys in Redis, if it is not the name of the read model."""


def compare(deployment: Deployment, expected: Expected) -> list[Difference]:
    """Returns all differences, in all sinks."""
    found: list[Difference] = []
    for (model, sink), documents in expected.items():
        if sink == "elasticsearch":
            actual = in_elasticsearch(deployment.stack, deployment.model(model))
        elif sink == "postgres":
            actual = in_postgres(deployment.reads, f"read.{model}")
        else:
            actual = in_redis(deployment.stack, f"{deployment.names.prefix}:{_KEYS.get(model, model)}:")
        found += differences(f"{model} in {sink}", documents, actual)
    return found


def describe(found: Sequence[Difference]) -> str:
    """Returns the number of differences of each kind, and the first differences in detail."""
    kinds = Counter(f"{one.kind} {one.where}" for one in found)
    return "\n".join((str(dict(kinds)), *map(str, found[:8])))
