"""All documents that there should be, beside all that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.convergence.deployment import Deployment
from tests.convergence.documents import Difference, differences, in_elasticsearch, in_redis
from tests.convergence.oracle import Documents

Expected = dict[tuple[str, str], Documents]
"""By read model and sink."""
_KEYS = {"tenants": "tenant", "people": "person", "tasks": "task"}


def compare(deployment: Deployment, expected: Expected) -> list[Difference]:
    """Every difference, in every sink."""
    found: list[Difference] = []
    for (model, sink), documents in expected.items():
        if sink == "elasticsearch":
            there = in_elasticsearch(deployment.stack, deployment.model(model))
        else:
            there = in_redis(deployment.stack, f"{deployment.names.prefix}:{_KEYS[model]}:")
        found += differences(f"{model} in {sink}", documents, there)
    return found


def describe(found: Sequence[Difference]) -> str:
    """How many of each kind, and the first of them."""
    kinds = Counter(f"{one.kind} {one.where}" for one in found)
    return "\n".join((str(dict(kinds)), *map(str, found[:8])))
