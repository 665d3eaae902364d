"""Checks docs/types.md against derived mappings. tests/integration/test_types.py compares it with real documents."""

from __future__ import annotations

from typing import Any

import pytest

from syncer import sinks
from syncer.declaration.compile import Field
from syncer.sinks.elasticsearch import mapping as _mapping
from tests.contracts.types_page import rows

ROWS = rows()


def shown(mapping: dict[str, Any]) -> str:
    """Returns a mapping as the page writes it."""
    words = [f"`{mapping['type']}`"]
    if mapping.get("fields"):
        words[0] += " with `keyword`"
    if mapping.get("ignore_malformed"):
        words.append("`ignore_malformed`")
    if mapping.get("ignore_above"):
        words.append(f"`ignore_above` {mapping['ignore_above']}")
    if mapping.get("enabled") is False:
        words.append("`enabled: false`")
    return ", ".join(words)


@pytest.mark.parametrize("type_", ROWS)
def test_the_page_shows_the_derived_mapping(type_: str) -> None:
    field = Field("f", type_, many=False)
    assert shown(_mapping.derive([field])["f"]) == ROWS[type_].mapping
    refused = sinks.check("redis", {"key": "a:{id}", "format": "hash"}, [field])
    assert bool(refused) is not ROWS[type_].in_hash


def test_the_page_has_every_type_with_a_mapping_of_its_own() -> None:
    assert set(_mapping._TYPES) - {"object"} <= set(ROWS)
