"""Compares a stored document with a rendered one, by value."""

from __future__ import annotations

from typing import Any

import pytest

from syncer.operations.comparison import FAILS, difference, same


class Sink:
    """Stores every document unchanged. Refuses documents without content."""

    def normalize(self, body: bytes) -> bytes | None:
        return None if body == b"{}" else body


@pytest.mark.parametrize(
    ("wanted", "actual", "found"),
    [
        (b'{"a":1}', b'{"a":1}', None),
        (b'{"a":1}', b'{"a":2}', "differing"),
        (b'{"a":1}', None, "missing"),
        (b"{}", None, "missing"),  # the sink refuses it: there may be no dead letter
        (b"{}", b'{"a":1}', "differing"),
        (None, b'{"a":1}', "orphaned"),
        (None, None, None),
        (FAILS, b'{"a":1}', "failing"),
        (FAILS, None, "failing"),
    ],
)
def test_the_kind_of_difference(wanted: bytes | None, actual: bytes | None, found: str | None) -> None:
    sink: Any = Sink()
    assert difference(sink, wanted, actual) == found


def test_numbers_are_compared_exactly_by_value_and_keys_in_any_order() -> None:
    assert same(b'{"a": 1.0, "b": 2}', b'{"b":2,"a":1.00}')
    assert not same(b'{"a":0.1}', b'{"a":0.10000000000000000001}')
    assert not same(b'{"a":1}', None) and same(None, None)
