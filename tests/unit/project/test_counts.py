"""Texts for people have the singular after the number 1: `1 change left`. `quantities.counted` writes it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncer.quantities import counted

ROOT = Path(__file__).parents[3]
PLURAL = re.compile(r" (?:[a-z-]+ )?(?!bytes\b|seconds\b|is\b|has\b|was\b|its\b|this\b)[a-z-]+s\b")
"""The words after a number. One byte or one second is not a value of the texts that have these units."""
OF_PAGE = re.compile(r"\$\{(?:number\(|[a-z.]*readings|[a-z.]*errors)[^}]*\} [a-z]+s\b")


def of_python(text: str) -> Iterator[str]:
    """Yields the f-strings in which a plural follows a number that may be 1. Constants may not."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in zip(node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            is_number = "," in (ast.unparse(value.format_spec) if value.format_spec else "")
            is_number |= isinstance(value.value, ast.Call) and ast.unparse(value.value.func) == "len"
            is_constant = ast.unparse(value.value).strip("_").isupper()
            if is_number and not is_constant and PLURAL.match(str(after.value)):
                yield f"{{{ast.unparse(value.value)}}}{after.value!s}"


def test_python_texts() -> None:
    found = [f"{path.name}: {one}" for path in (ROOT / "syncer").rglob("*.py") for one in of_python(path.read_text())]
    exceptions = [
        one for one in found if one.startswith(("layers.py: {len(found)} errors", "mistakes.py: {len(each)}"))
    ]
    assert sorted(found) == sorted(exceptions), "write counted(number, noun)"
    assert len(exceptions) == 2, "these two are written for several mistakes only"


def test_texts_of_the_pages() -> None:
    pages = [*(ROOT / "syncer/serving/static").glob("*.js"), *(ROOT / "demo/fleet/static").glob("*.js")]
    assert [one for path in pages for one in OF_PAGE.findall(path.read_text())] == []


@pytest.mark.parametrize("text", ["f'{n:,} changes left'", "f'{len(a)} more items'", "f'a' f'{n:,.0f} documents or'"])
def test_a_plural_is_found(text: str) -> None:
    assert list(of_python(text))


def test_counts_of_other_plurals_and_verbs() -> None:
    assert [counted(n, "document was", "documents were") for n in (0, 1, 2000)] == [
        "0 documents were",
        "1 document was",
        "2,000 documents were",
    ]
