"""Compares one document in a sink with the document that PostgreSQL renders. Pure.

`verify.py` compares all documents of a read model, `trace/` compares one.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Literal

from syncer.ports import InspectableSink

FAILS = b""
"""Stands for a document that PostgreSQL cannot render."""
Difference = Literal["missing", "differing", "orphaned", "failing"]


def difference(sink: InspectableSink, wanted: bytes | None, actual: bytes | None) -> Difference | None:
    """Returns how a document in a sink differs from PostgreSQL. None if both are equal, or if both have none.

    wanted: the rendered document, `FAILS`, or None if PostgreSQL has no document.
    actual: the document as `sink.read` returns it; None if the sink has none.
    A `missing` document may also have expired: see `InspectableSink.expired`.
    """
    if wanted == FAILS:
        return "failing"
    if wanted is None:
        return None if actual is None else "orphaned"
    if actual is None:
        return "missing"  # also if the sink refuses it: it may have no dead letter, if no daemon has tried to write it
    return None if same(sink.normalize(wanted), actual) else "differing"


def same(left: bytes | None, right: bytes | None) -> bool:
    """Whether two JSON texts hold the same value. Numbers are compared exactly by value: 1.0 equals 1.00."""
    if left == right:
        return True
    return left is not None and right is not None and _value(left) == _value(right)


def _value(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal)
