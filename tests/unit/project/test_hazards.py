"""docs/HAZARDS.md and the tests that are named after its rows tell of each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NUMBERS = range(1, 31)
TO_COME: set[int] = set()
"""Rows that are still to be written."""


def existing() -> set[str]:
    """The names of all tests."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows() -> dict[int, set[str]]:
    """The tests that each row names."""
    text = (ROOT / "docs" / "HAZARDS.md").read_text()
    lines = re.findall(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE)
    return {int(number): set(re.findall(r"`(test_\w+)`", line)) for number, line in lines}


def test_every_hazard_has_a_row_and_every_row_a_test() -> None:
    assert set(rows()) | TO_COME == set(NUMBERS)
    without = [number for number, named in rows().items() if not named]
    assert not without


def test_the_page_names_the_tests_that_carry_its_numbers() -> None:
    carrying = {name for name in existing() if re.match(r"test_hazard_\d\d_", name)}
    named = {name for number, row in rows().items() for name in row}
    assert named <= existing(), "named and not there"
    assert {name for name in carrying if int(name[12:14]) in rows()} <= named, "there and not named"
    for number, row in rows().items():
        assert all(name.startswith(f"test_hazard_{number:02}_") for name in row)


def test_numbers_have_two_digits() -> None:
    assert not [name for name in existing() if re.match(r"test_hazard_\d_", name)]
