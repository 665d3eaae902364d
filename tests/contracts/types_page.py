"""Reads the table of docs/types.md, for the tests that compare it with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "types.md"


class Row(NamedTuple):
    json: str
    mapping: str
    in_hash: bool


def rows() -> dict[str, Row]:
    """Returns type → its row."""
    table = PAGE.read_text("utf-8").partition("| --- |")[2].partition("\n\n")[0]
    found: dict[str, Row] = {}
    for line in table.splitlines()[1:]:
        types, json, mapping, in_hash = (cell.strip() for cell in line.strip("|").split("|"))
        for type_ in re.findall(r"`([^`]+)`", types):
            assert type_ not in found, f"{type_} is there twice"
            found[type_] = Row(json, mapping, in_hash == "yes")
    return found
