"""Checks that docs/hazards.md and the hazard tests name each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NUMBERS = range(1, 31)


def existing() -> set[str]:
    """Returns the names of all tests."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def sections() -> dict[int, str]:
    """Returns the text of each hazard's section by its number."""
    text = (ROOT / "docs" / "hazards.md").read_text()
    parts = re.split(r"(?m)^## (\d+)\. ", text)[1:]
    numbers = [int(number) for number in parts[::2]]
    assert len(set(numbers)) == len(numbers), "a number has two sections"
    return dict(zip(numbers, parts[1::2], strict=True))


def named() -> dict[int, set[str]]:
    """Returns the tests that each section names."""
    return {number: set(re.findall(r"(?m)^- `(test_\w+)`$", text)) for number, text in sections().items()}


def test_every_hazard_has_a_section_and_every_section_has_a_test() -> None:
    assert list(sections()) == list(NUMBERS)
    without = [number for number, tests in named().items() if not tests]
    assert not without


def test_every_section_describes_the_hazard_and_the_answer() -> None:
    for number, text in sections().items():
        hazard, answer, tests = re.split(r"\*\*Answer\.\*\*|\nTests:\n", text)
        assert len(hazard.splitlines()) > 1 and hazard.strip() and answer.strip() and tests.strip(), number


def test_the_page_names_the_tests_that_carry_its_numbers() -> None:
    carrying = {name for name in existing() if re.match(r"test_hazard_\d\d_", name)}
    on_page = {name for tests in named().values() for name in tests}
    assert on_page <= existing(), "the page names tests that do not exist"
    assert carrying <= on_page, "the page does not name these tests"
    for number, tests in named().items():
        assert all(name.startswith(f"test_hazard_{number:02}_") for name in tests)


def test_numbers_have_two_digits() -> None:
    assert not [name for name in existing() if re.match(r"test_hazard_\d_", name)]
