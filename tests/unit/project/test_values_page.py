"""Checks the values that docs/read-models.md shows against those that are rendered and mapped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from syncer.declaration.compile import compile
from syncer.declaration.model import parse
from syncer.sinks.elasticsearch import mapping
from tests.harness.catalogs import catalog, table
from tests.integration.test_render_types import VALUES

TEXT = (Path(__file__).parents[3] / "docs" / "read-models.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \|$", TEXT, re.MULTILINE)


def test_the_page_shows_numeric_and_interval() -> None:
    assert {"numeric", "interval"} <= {row[0] for row in ROWS}


@pytest.mark.parametrize(("type_", "value", "text", "mapped"), ROWS)
def test_values_appear_as_the_page_says(type_: str, value: str, text: str, mapped: str) -> None:
    assert (type_, value, text) in VALUES
    compiled = compile(
        parse("name: o\nroot: {table: t}\ndocument: {v: v}\nsink: {memory: {}}", "m.yaml"),
        catalog(table("t", f"id bigint key, v {type_}")),
    )
    assert mapping.mapping({}, compiled.fields)["properties"]["v"]["type"] == mapped
